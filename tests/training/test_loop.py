"""Training learns, adds up its gradient rightly, stops before it spoils anything, and goes on to the same bits."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import CPU
from tests.small_training import Data, advance, batch, settings, start, vocab_size
from tinygpt.data.dataset import TokenDataset
from tinygpt.files.text import read_table
from tinygpt.model.hardware import autocast
from tinygpt.model.loss import cross_entropy
from tinygpt.training import loop
from tinygpt.training.loop import DivergedError
from tinygpt.training.optimizer import AdamW
from tinygpt.training.passes import Passes
from tinygpt.training.results import write_curves
from tinygpt.training.state import weights


def test_one_batch_is_memorised(data: Data) -> None:
    chosen = settings(steps=200, learning_rate=0.01, schedule="constant", weight_decay=0.0)
    state = start(data, chosen)
    inputs, targets = batch(data, 4)
    for _ in range(150):
        loop.train_step(state, Passes(state, "fp32"), (inputs, targets), chosen)
    assert state.train_rows[0]["loss"] > 3.5
    assert state.train_rows[-1]["loss"] < 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_lowers_the_loss_on_text_it_has_not_seen(data: Data, optimizer: str, precision: str) -> None:
    chosen = settings(steps=60, optimizer=optimizer, eval_every=20, learning_rate=0.01)
    state = start(data, chosen, precision)
    advance(loop.train(state, chosen, data, 3, precision), 60)
    losses = [row["loss"] for row in state.validation_rows]
    assert losses[0] == pytest.approx(math.log(vocab_size(data)), rel=0.03)
    assert losses[-1] < 0.75 * losses[0]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(data: Data) -> None:
    chosen = settings()
    runs = []
    for seed in (3, 3, 4):
        state = start(data, chosen, dropout=0.1)
        advance(loop.train(state, chosen, data, seed, "fp32"), 6)
        runs.append(weights(state.model))
    same, again, other = runs
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not all(torch.equal(same[name], other[name]) for name in same)


@pytest.mark.parametrize("stops", [(1,), (3,), (5,), (1, 3, 5)])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("average", [0.0, 0.5])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    data: Data,
    stops: tuple[int, ...],
    optimizer: str,
    precision: str,
    accumulation: int,
    dropout: float,
    average: float,
) -> None:
    chosen = settings(optimizer=optimizer, accumulation=accumulation, eval_every=2, average=average)
    whole = start(data, chosen, precision, dropout=dropout)
    advance(loop.train(whole, chosen, data, 3, precision), 6)
    state = start(data, chosen, precision, dropout=dropout)
    for stop in stops:
        advance(loop.train(state, chosen, data, 3, precision), stop - state.step)
        kept = {name: tensor.clone() for name, tensor in state.tensors().items()}, copy.deepcopy(state.metadata())
        torch.manual_seed(999)  # whatever happened in between
        state = start(data, chosen, precision, dropout=dropout)
        state.check(*kept)
        state.restore(*kept)
    advance(loop.train(state, chosen, data, 3, precision), 6 - state.step)
    assert state.metadata() == whole.metadata()
    assert state.train_rows == whole.train_rows
    expected, found = whole.tensors(), state.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_best_weights_of_before_a_stop_are_still_the_best_after_it(data: Data) -> None:
    chosen = settings()
    first = start(data, chosen)
    advance(loop.train(first, chosen, data, 3, "fp32"), 3)
    loop.record_validation(first, 0.0)  # nothing will be better
    second = start(data, chosen)
    second.restore({name: t.clone() for name, t in first.tensors().items()}, copy.deepcopy(first.metadata()))
    advance(loop.train(second, chosen, data, 3, "fp32"), 3)
    assert (second.best_step, second.best_loss) == (3, 0.0)
    assert all(torch.equal(first.best[name], second.best[name]) for name in first.best)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_weights_kept_are_the_mean_that_was_asked_for(data: Data, share: float) -> None:
    """Against the same written out, a sum over all steps: those after step s count as the product that follows."""
    chosen = settings(average=share, eval_every=6)
    state, seen = start(data, chosen), []
    for _ in loop.train(state, chosen, data, 3, "fp32"):
        seen.append(weights(state.model))
    newest = [min(1.0, 1 / (share * step)) for step in range(1, 7)]  # what each step's weights count for when new
    shares = [part * math.prod(1 - later for later in newest[step:]) for step, part in enumerate(newest, 1)]
    assert sum(shares) == pytest.approx(1)
    expected = {name: sum(part * one[name] for part, one in zip(shares, seen, strict=True)) for name in seen[0]}
    torch.testing.assert_close(state.kept(), expected)
    assert all(torch.equal(state.best[name], tensor) for name, tensor in state.kept().items())
    assert not torch.equal(state.kept()["head.weight"], seen[-1]["head.weight"])


def test_the_validation_loss_is_that_of_the_weights_that_are_kept(data: Data) -> None:
    chosen = settings(average=0.5, eval_every=6, eval_tokens=1000)
    state = start(data, chosen)
    advance(loop.train(state, chosen, data, 3, "fp32"), 6)

    def loss() -> float:
        windows = data["validation"].evaluation(4, limit=1000)
        return loop.mean_loss(state.model, windows, autocast(CPU, "fp32"))

    newest = loss()
    state.model.load_state_dict(state.kept(), strict=False)
    assert state.validation_rows[-1]["loss"] == pytest.approx(loss(), rel=1e-6)
    assert state.validation_rows[-1]["loss"] != pytest.approx(newest, rel=1e-4)


def test_a_mean_of_none_but_the_newest_weights_is_no_mean(data: Data) -> None:
    chosen = settings(average=0.0)
    state = start(data, chosen)
    advance(loop.train(state, chosen, data, 3, "fp32"), 6)
    assert not state.average
    assert all(torch.equal(state.kept()[name], tensor) for name, tensor in weights(state.model).items())


def test_a_state_saved_without_its_mean_is_not_taken_up(data: Data) -> None:
    state = start(data, settings(average=0.5))
    advance(loop.train(state, settings(average=0.5), data, 3, "fp32"), 1)
    tensors = {name: tensor for name, tensor in state.tensors().items() if name != "average.head.weight"}
    with pytest.raises(ValueError, match=r"its average\.head\.weight is missing"):
        state.check(tensors, state.metadata())


def test_accumulated_gradients_equal_those_of_the_big_batch(data: Data) -> None:
    chosen = settings()
    inputs, targets = batch(data, 8)
    gradients = []
    for size in (8, 2, 3):  # whole; in four equal parts; in parts of 3, 3 and 2
        state = start(data, chosen)
        loss, _ = Passes(state, "fp32").accumulate((inputs, targets), size)
        gradients.append([p.grad.clone() for p in state.model.parameters() if p.grad is not None] + [loss])
    for other in gradients[1:]:
        for whole, part in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_limit_and_their_true_norm_reported(data: Data) -> None:
    state = start(data, settings())
    Passes(state, "fp32").accumulate(batch(data, 4), 4)

    def norm() -> float:
        return math.sqrt(sum(p.grad.square().sum().item() for p in state.model.parameters() if p.grad is not None))

    before = norm()
    assert loop.clip_gradients(state.model.parameters(), 0.0).item() == pytest.approx(before)  # 0: left as they are
    assert norm() == pytest.approx(before)
    assert loop.clip_gradients(state.model.parameters(), before / 2).item() == pytest.approx(before)
    assert norm() == pytest.approx(before / 2, rel=1e-4)


def test_a_step_is_one_of_its_whole_batch_clipped_at_its_scheduled_rate(data: Data) -> None:
    """Against the same written out: the gradient of all 8 sequences, its norm brought to the limit, one AdamW step."""
    chosen = settings(
        optimizer="adamw", batch_size=2, accumulation=4, gradient_clip=0.1, weight_decay=0.1, warmup_steps=3, steps=9
    )
    state, by_hand = start(data, chosen), start(data, chosen).model
    inputs, targets = batch(data, 8)
    loop.train_step(state, Passes(state, "fp32"), (inputs, targets), chosen)

    by_hand.train()
    cross_entropy(by_hand(inputs), targets, "mean").backward()
    parameters = [p for p in by_hand.parameters() if p.grad is not None]
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in parameters if p.grad is not None))
    rate = chosen.learning_rate / 4  # the first of three steps of warm-up, and the peak after them
    row = {"step": 1, "loss": pytest.approx(state.train_rows[0]["loss"]), "learning_rate": pytest.approx(rate)}
    assert state.train_rows == [row | {"gradient_norm": pytest.approx(norm, rel=1e-4)}]
    with torch.no_grad():
        for p in parameters:
            assert p.grad is not None
            p.mul_(1 - rate * 0.1 * (p.dim() == 2))
            scaled = p.grad * (0.1 / norm)
            p.sub_(rate * scaled / (scaled.abs() + 1e-10))  # AdamW's first step: mean ÷ root of mean square
    for mine, theirs in zip(by_hand.parameters(), state.model.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-5)


def test_adamw_gets_the_betas_that_were_asked_for(data: Data) -> None:
    state = start(data, settings(betas=[0.8, 0.9]))
    (optimizer,) = (member for member in state.optimizers.members if isinstance(member, AdamW))
    assert optimizer.betas == (0.8, 0.9)
    assert optimizer.eps <= 1e-8


def test_dropout_differs_from_step_to_step(data: Data, tokens: dict[str, np.ndarray]) -> None:
    chosen = settings(steps=2, learning_rate=1e-12, schedule="constant")
    losses = []
    for seed in (3, 4):
        state = start(data, chosen, dropout=0.5)
        state.model.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
        one = data | {"train": TokenDataset(tokens["train"][:17], 16)}  # a single window: every batch is the same
        advance(loop.train(state, chosen, one, seed, "fp32"), 2)
        losses += [row["loss"] for row in state.train_rows]
    assert len(set(losses)) == 4


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_an_fp16_overflow_skips_the_step_for_all_parameters_and_lowers_the_scale(
    data: Data, monkeypatch: pytest.MonkeyPatch, bad: float, clip: float
) -> None:
    chosen = settings(optimizer="muon", gradient_clip=clip)
    state = start(data, chosen)
    state.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=1024.0)
    before = weights(state.model)
    honest = Passes.accumulate

    def overflow(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        result = honest(*arguments)
        grad = state.model.head.weight.grad
        assert grad is not None
        grad[0, 0] = bad
        return result

    monkeypatch.setattr(Passes, "accumulate", overflow)
    loop.train_step(state, Passes(state, "fp32"), batch(data, 4), chosen)
    assert all(torch.equal(before[name], after) for name, after in weights(state.model).items())
    assert state.scaler.get_scale() == 512.0
    assert state.train_rows[0]["gradient_norm"] == 0.0
    monkeypatch.setattr(Passes, "accumulate", honest)
    loop.train_step(state, Passes(state, "fp32"), batch(data, 4), chosen)
    assert not torch.equal(before["head.weight"], state.model.head.weight)
    assert all(p.isfinite().all() for p in state.model.parameters())


def test_a_gradient_that_overflows_at_every_scale_is_a_diverged_one(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = start(data, settings())
    state.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=loop.SMALLEST_SCALE)
    monkeypatch.setattr(loop, "clip_gradients", lambda *_: torch.tensor(math.inf))
    with pytest.raises(DivergedError):
        loop.train_step(state, Passes(state, "fp32"), batch(data, 4), settings())


def test_a_step_that_would_spoil_the_weights_is_refused_with_a_remedy(data: Data) -> None:
    chosen = settings(learning_rate=0.5)
    state = start(data, chosen)
    with torch.no_grad():
        state.model.norm.weight[0] = math.inf
    before = weights(state.model)
    with pytest.raises(DivergedError, match=r"diverged at step 0: .* try -S train\.learning_rate=0\.25"):
        loop.train_step(state, Passes(state, "fp32"), batch(data, 4), chosen)
    assert all(torch.equal(before[name], after) for name, after in weights(state.model).items())
    assert state.step == 0


@pytest.mark.parametrize(
    ("init_from", "step", "says"),
    [
        (None, 3, r"diverged at step 3: the validation loss is nan\. .* try -S train\.learning_rate="),
        (None, 6, r"diverged at step 6: .* The learning rate is 0\.\d*[1-9]"),  # the last step's, not the 0 after it
        ("base", 0, r"With the unchanged weights of base, the validation loss is nan\. Try train\.precision=fp32"),
    ],
)
def test_a_validation_loss_that_is_no_number_is_told_with_a_remedy(
    data: Data, init_from: str | None, step: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(eval_every=3, init_from=init_from)
    state = start(data, chosen)
    monkeypatch.setattr(loop, "mean_loss", lambda *_: math.nan if state.step == step else 3.0)
    with pytest.raises(DivergedError, match=says):
        list(loop.train(state, chosen, data, 3, "fp32"))
    assert all(math.isfinite(row["loss"]) for row in state.validation_rows)  # and can be written


def test_the_best_weights_are_kept_when_the_loss_rises_again(data: Data) -> None:
    state = start(data, settings())
    for step, loss in enumerate([3.0, 2.0, 2.5]):
        state.step = step
        with torch.no_grad():
            state.model.norm.weight.fill_(float(step))
        loop.record_validation(state, loss)
    assert (state.best_step, state.best_loss) == (1, 2.0)
    assert state.best["norm.weight"][0] == 1.0


def test_evaluation_falls_due_on_its_steps_and_always_at_the_end(data: Data) -> None:
    for every, expected in ((2, [0, 2, 4, 5]), (100, [0, 5])):
        chosen = settings(steps=5, eval_every=every)
        state = start(data, chosen)
        advance(loop.train(state, chosen, data, 3, "fp32"), 5)
        assert [row["step"] for row in state.validation_rows] == expected


def test_the_mean_loss_weighs_every_token_alike(data: Data, tokens: dict[str, np.ndarray]) -> None:
    """Windows of different lengths: the mean is over tokens, not over windows."""
    state = start(data, settings())
    state.model.eval()
    ids = torch.from_numpy(tokens["validation"][:28].astype(np.int64))[None]
    windows = [(ids[:, :16], ids[:, 1:17]), (ids[:, 16:20], ids[:, 17:21])]
    nats = [cross_entropy(state.model(x), y, "sum").item() for x, y in windows]
    assert loop.mean_loss(state.model, windows, autocast(CPU, "fp32")) == pytest.approx(sum(nats) / 20)


def test_curves_come_back_as_they_were_written(tmp_path: Any, data: Data) -> None:
    chosen = settings(steps=4, eval_every=2)
    state = start(data, chosen)
    advance(loop.train(state, chosen, data, 3, "fp32"), 4)
    write_curves(tmp_path, state, chosen)
    rows = read_table(tmp_path / "train.tsv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] == pytest.approx(state.train_rows[-1]["loss"], rel=1e-5)
    assert list(rows[0]) == ["step", "loss", "learning_rate", "gradient_norm"]
    assert [row["step"] for row in read_table(tmp_path / "validation.tsv")] == [0, 2, 4]


def test_health_is_noted_every_ten_steps_and_leaves_training_as_it_was(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(steps=12, learning_rate=0.01)
    state = start(data, chosen)
    advance(loop.train(state, chosen, data, 3, "fp32"), 12)
    assert [row["step"] for row in state.health_rows] == [1, 11]
    assert all(1e-5 < row["update_ratio"] < 0.5 for row in state.health_rows)
    assert state.health_rows[1]["activation_scale"] > state.health_rows[0]["activation_scale"] > 0
    monkeypatch.setattr(loop, "HEALTH_EVERY", 1000)
    unseen = start(data, chosen)
    advance(loop.train(unseen, chosen, data, 3, "fp32"), 12)
    assert all(torch.equal(a, b) for a, b in zip(state.model.parameters(), unseen.model.parameters(), strict=True))


def test_the_update_ratio_is_the_length_of_the_step_over_that_of_the_weights(data: Data) -> None:
    state, chosen = start(data, settings()), settings()
    before = weights(state.model)
    loop.examined_step(state, Passes(state, "fp32"), batch(data, 4), chosen)
    after = weights(state.model)
    moved = sum((after[name] - weight).square().sum() for name, weight in before.items())
    length = sum(weight.square().sum() for weight in before.values())
    assert state.health_rows[0]["update_ratio"] == pytest.approx(math.sqrt(moved / length), rel=1e-5)
