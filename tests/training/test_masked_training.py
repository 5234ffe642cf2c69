"""Training on answers only: every counted token has the same weight, whatever the rows, batches and processes."""

import json
import math
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import CPU, ROOT
from tests.small_conversations import drawn, packed, said, tokenizer
from tests.together_masked import CASES, CONTEXT, data, gradients, settings, start, steps, trained, uneven
from tinygpt.data.dataset import Batch
from tinygpt.model import hardware
from tinygpt.model.loss import IGNORED, cross_entropy, token_losses
from tinygpt.training import lora
from tinygpt.training.loop import mean_loss, train_step
from tinygpt.training.passes import Passes
from tinygpt.training.run import announce
from tinygpt.training.state import weights

LORA = CASES["lora"]
END = tokenizer().end_of_text


def batch(rows: int = 4, seed: int = 5) -> Batch:
    return packed(drawn(30, seed=seed), CONTEXT).__getitems__(list(range(rows)))


def by_hand(model: Any, inputs: Tensor, targets: Tensor) -> float:
    """The mean of −ln p over the targets that count, one number at a time."""
    with torch.no_grad():
        probabilities = model.eval()(inputs, END).double().softmax(dim=-1)
    losses = [
        -math.log(float(probabilities[row, place, targets[row, place]]))
        for row in range(len(inputs))
        for place in range(inputs.shape[1])
        if targets[row, place] != IGNORED
    ]
    return sum(losses) / len(losses)


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# The loss


def test_the_loss_is_the_mean_over_the_tokens_that_count() -> None:
    chosen = settings()
    for inputs, targets in (batch(), uneven()):
        loss, _ = gradients((inputs, targets), 4)
        assert loss == pytest.approx(by_hand(start(chosen).model, inputs, targets), rel=1e-5)


def test_what_does_not_count_costs_nothing_and_has_no_gradient() -> None:
    logits, targets = torch.randn(2, 5, 7, requires_grad=True), torch.randint(7, (2, 5))
    targets[0, 1:] = targets[1, 3] = IGNORED
    ignored = targets == IGNORED
    assert not token_losses(logits.detach(), targets)[ignored.numpy()].any()
    cross_entropy(logits, targets, "sum").backward()
    assert logits.grad is not None
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].abs().sum(dim=-1).min() > 0


@pytest.mark.parametrize("case", ["all weights", "lora"])
def test_without_a_counted_token_loss_and_gradient_are_exactly_zero(case: str) -> None:
    chosen = settings(**(LORA if case == "lora" else {}))
    inputs, targets = batch()
    loss, found = gradients((inputs, torch.full_like(targets, IGNORED)), 2, chosen)
    assert loss == 0
    assert found
    assert not any(gradient.any() for gradient in found)
    assert any(gradient.any() for gradient in gradients((inputs, targets), 2, chosen)[1])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_first_step_without_a_counted_token_changes_nothing(optimizer: str) -> None:
    chosen = settings(optimizer=optimizer, weight_decay=0.0, warmup_steps=0)
    state = start(chosen)
    before = weights(state.model)
    inputs, targets = batch()
    train_step(state, Passes(state, "fp32", END), (inputs, torch.full_like(targets, IGNORED)), chosen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(state.model).items())
    assert state.train_rows[0]["loss"] == state.train_rows[0]["gradient_norm"] == 0
    train_step(state, Passes(state, "fp32", END), (inputs, targets), chosen)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in weights(state.model).items() if "mlp" in name)


def test_rows_without_a_counted_token_add_exactly_nothing() -> None:
    inputs, targets = uneven()
    loss, found = gradients((inputs, targets), 2)  # the second pass counts nothing
    alone, expected = gradients((inputs[:2], targets[:2]), 2)
    assert loss == alone
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


# Batches


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("make", [batch, uneven])
def test_accumulated_passes_equal_the_whole_batch(make: Any, at_once: int) -> None:
    inputs, targets = make()
    counts = (targets != IGNORED).sum(dim=1).tolist()
    assert len(set(counts)) > 1  # as many rows, but not as many counted tokens
    loss, found = gradients((inputs, targets), at_once)
    whole, expected = gradients((inputs, targets), 4)
    assert loss == pytest.approx(whole, rel=1e-5)
    close(found, expected)


def test_the_gradient_is_that_of_the_mean_over_counted_tokens() -> None:
    inputs, targets = uneven()
    _, found = gradients((inputs, targets), 1)
    state = start(settings())
    logits = state.model.train()(inputs, END)
    counted = targets != IGNORED
    chosen = logits.log_softmax(dim=-1)[counted].gather(1, targets[counted][:, None])
    close(found, list(torch.autograd.grad(-chosen.mean(), list(state.parameters.values()))))


def test_packing_changes_no_conversations_gradient() -> None:
    talks = drawn(6, seed=6, turns=1)
    together, apart = packed(talks, CONTEXT), [packed([talk], CONTEXT) for talk in talks]
    assert len(together) < len(talks)
    loss, found = gradients(together.__getitems__(list(range(len(together)))), 2)
    alone = [data.__getitems__([0]) for data in apart]
    separate = torch.cat([inputs for inputs, _ in alone]), torch.cat([targets for _, targets in alone])
    expected, each = gradients(separate, 2)
    assert loss == pytest.approx(expected, rel=1e-5)
    close(found, each)


def test_attention_across_records_is_a_setting() -> None:
    state, (inputs, targets) = start(settings()), batch()
    apart, _ = Passes(state, "fp32", END).accumulate((inputs, targets), 4)
    across, _ = Passes(state, "fp32").accumulate((inputs, targets), 4)
    assert abs(float(apart) - float(across)) > 1e-4


# Evaluation


def test_the_validation_loss_is_the_mean_over_the_held_out_answers() -> None:
    model, held_out = start(settings()).model, data()["validation"]
    cast = hardware.autocast(CPU, "fp32")
    found = mean_loss(model, held_out.evaluation(3), cast, separator=END)
    batches = [*held_out.evaluation(1)]
    inputs, targets = (torch.cat([pair[i] for pair in batches]) for i in (0, 1))
    assert found == pytest.approx(by_hand(model, inputs, targets), rel=1e-5)
    state = start(chosen := settings(eval_tokens=10**9))
    steps(state, chosen, 1)
    assert state.validation_rows[0]["loss"] == pytest.approx(found, rel=1e-5)


# Runs


@pytest.mark.parametrize("case", CASES)
def test_a_run_on_conversations_learns_and_resumes_bit_for_bit(case: str) -> None:
    whole, resumed = trained(case), trained(case, stop=2)
    for name, tensor in weights(whole.model).items():
        assert torch.equal(tensor, weights(resumed.model)[name]), name
    assert whole.train_rows == resumed.train_rows
    assert whole.validation_rows == resumed.validation_rows
    losses = [row["loss"] for row in whole.validation_rows]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2, "init_from": "base"}, {"document_mask": False}])
def test_the_loss_is_finite_with_records_longer_than_the_context_and_batches_of_one(changes: dict[str, Any]) -> None:
    long = "it is the east and " * 30
    talks = [said("light", "sun", long, "lost", "east", long), *drawn(9, 3, turns=9), said("a", "b", system="c")]
    chosen, examples = settings(batch_size=1, accumulation=1, steps=12, **changes), packed(talks, CONTEXT)
    assert examples.left_out
    state = start(chosen)
    passes = Passes(state, "fp32", END if chosen.document_mask else None)
    for row in range(len(examples)):
        train_step(state, passes, examples.__getitems__([row]), chosen)
    assert all(0 < row["loss"] < 100 for row in state.train_rows)
    assert all(0 < row["gradient_norm"] < math.inf for row in state.train_rows)


@pytest.mark.parametrize("shape", [{}, {"n_head": 4, "n_kv_head": 2}])
def test_bf16_masks_the_same_tokens(shape: dict[str, Any]) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        for name, (inputs, targets) in (
            ("some", batch()),
            ("none", (batch()[0], torch.full_like(batch()[1], IGNORED))),
        ):
            state = start(settings(), **shape)
            loss, _ = Passes(state, precision, END).accumulate((inputs, targets), 2)
            losses[precision, name] = float(loss)
    assert losses["bf16", "some"] == pytest.approx(losses["fp32", "some"], rel=0.02)
    assert losses["bf16", "none"] == 0


def test_lora_learns_the_same_masked_loss_and_only_its_matrices() -> None:
    loss, found = gradients(uneven(), 2, chosen := settings(**LORA))
    assert loss == pytest.approx(gradients(uneven(), 2)[0], rel=1e-6)  # its change starts at zero
    state = start(chosen)
    learning = [name for name, p in state.parameters.items() if p.requires_grad]
    assert len(found) == len(learning)
    assert all(name.endswith((lora.A, lora.B)) for name in learning)
    before = weights(state.model)
    train_step(state, Passes(state, "fp32", END), uneven(), chosen)
    changed = {name for name, tensor in weights(state.model).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= set(learning)


def test_answers_that_do_not_fit_are_announced() -> None:
    examples = data() | {"train": packed([said("light", "sun"), said("light", "sun " * 100)], CONTEXT)}
    state = start(chosen := settings())
    prepared: Any = SimpleNamespace(
        settings=chosen,
        data=examples,
        precision="fp32",
        separator=None,
        config=state.model.config,
        compiled=False,
        machine="m",
        why="w",
    )
    lost = examples["train"].left_out
    assert lost > 100
    said_so = [line for line in announce(prepared, state) if "left out" in line]
    assert said_so == [f"train: {lost} tokens of answers are left out; with their questions they are longer than the "
                       f"context of {CONTEXT}"]  # fmt: skip


# Processes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes ended with."""
    folder = tmp_path_factory.mktemp("two")
    command = ["torchrun", "--standalone", "--nproc_per_node=2", "-m", "tests.together_masked", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def metadata(folder: Path, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"metadata {rank}").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_does(two: Path, case: str) -> None:
    alone, found = trained(case), metadata(two)[case]
    assert found == metadata(two, 1)[case]
    for one, other in zip(alone.train_rows + alone.validation_rows, found["rows"] + found["validations"], strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    before = weights(start(settings(**CASES[case])).model)
    for name, tensor in load_file(two / f"{case} 0").items():
        expected = weights(alone.model)[name]
        assert (tensor - expected).norm() <= 1e-3 * (expected - before[name]).norm(), name


@pytest.mark.slow
def test_two_processes_weigh_every_token_alike_though_one_has_fewer(two: Path) -> None:
    loss, expected = gradients(uneven(), 4)
    assert metadata(two)["uneven"] == pytest.approx(loss, rel=1e-5)
    for rank in (0, 1):
        found = load_file(two / f"uneven {rank}")
        close([found[f"{i}"] for i in range(len(found))], expected)
