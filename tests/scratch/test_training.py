"""The reference implementation of training takes the steps of the fast path: clipping, schedules, AdamW, Muon, whole
runs.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import CPU, SHAPES, gpt, gpt_config, params
from tests.small_training import Data, vocab_size
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.errors import ConfigError
from tinygpt.files.paths import Paths
from tinygpt.scratch import optimizers as slow
from tinygpt.scratch import training as slow_training
from tinygpt.scratch.gpt import GPT
from tinygpt.scratch.train import History, check
from tinygpt.scratch.train import train as train_reference
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training import optimizer
from tinygpt.training.loop import average_weights, clip_gradients, train
from tinygpt.training.state import State, initial_state


def settings(**changes: Any) -> Any:
    return params(**{f"train__{key}": value for key, value in changes.items()}).train


def pair(**changes: Any) -> tuple[Any, Any]:
    model = gpt(**changes)
    ref = GPT(model.config)
    ref.load_state_dict(model.state_dict())
    return model, ref


def gradients(model: Any, seed: int, size: float = 1.0) -> list[Tensor]:
    """Random ones, set as those of the model."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=random)
    return [parameter.grad for parameter in model.parameters()]


def fast(data: Data, shape: dict[str, Any] | None = None, **changes: Any) -> State:
    """A run of the fast path, to its end."""
    chosen = settings(**changes)
    state = initial_state(gpt_config(vocab_size(data), **(shape or {})), chosen, 3, CPU, "fp32")
    for _ in train(state, chosen, data, 3, "fp32"):
        pass
    return state


def reference(data: Data, shape: dict[str, Any] | None = None, **changes: Any) -> tuple[GPT, History]:
    """The same run of the reference implementation: its model, and what it left."""
    model = GPT(gpt_config(vocab_size(data), **(shape or {})))
    model.initialise(torch.Generator().manual_seed(3))
    return model, train_reference(model, settings(**changes), data, 3)


# the parts of a step


@pytest.mark.parametrize("size", [(6, 6), (4, 9), (9, 4), (1, 5)])
def test_newton_schulz_is_that_of_the_fast_path(size: tuple[int, int]) -> None:
    matrix = torch.randn(size, generator=torch.Generator().manual_seed(1))
    expected = optimizer.orthogonalise(matrix[None])[0]
    torch.testing.assert_close(slow.newton_schulz(matrix), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("name", ["qwen3", "qwen3-tied", "qwen3-grouped", "gpt2"])
def test_the_same_gradients_move_every_parameter_alike(name: str, kind: str) -> None:
    model, ref = pair(**SHAPES[name])
    chosen = settings(optimizer=kind, weight_decay=0.3, betas=[0.8, 0.9])
    pairs: list[Any] = [(model, optimizer.build(model, chosen)), (ref, slow_training.build(ref, chosen))]
    for step in range(6):
        for one, optimizers in pairs:
            gradients(one, step, 10.0**-step)
            if step == 2:
                one.norm.weight.grad = None  # what has no gradient stays where it is, and forgets nothing
            optimizers.step(0.01 * (step + 1))
            optimizers.zero_grad()
            assert all(parameter.grad is None for parameter in one.parameters())
        found, expected = (dict(one.named_parameters()) for one in (ref, model))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [0.0, 0.5, 1e9])
def test_clipping_shortens_the_same_gradients_by_as_much(limit: float) -> None:
    model, ref = pair()
    found, expected = gradients(ref, 1), gradients(model, 1)
    lengths = (
        slow_training.clip_gradients(ref.parameters(), limit),
        clip_gradients(model.parameters(), limit),
    )
    torch.testing.assert_close(*lengths)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(50, 0), (50, 7), (5, 9), (1, 0), (1, 1)])
def test_schedules_are_the_same_at_every_step(kind: str, steps: int, warmup: int) -> None:
    chosen = settings(schedule=kind, steps=steps, warmup_steps=warmup, final_fraction=0.1)
    for step in range(steps + 1):
        assert slow_training.schedule(step, chosen) == pytest.approx(optimizer.schedule(step, chosen), rel=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.999])
def test_running_means_of_the_weights_are_the_same(share: float) -> None:
    model, ref = pair()
    found, expected = ({name: p.detach().clone() for name, p in one.named_parameters()} for one in (ref, model))
    for steps in range(1, 8):
        with torch.no_grad():
            for one in (ref, model):
                for parameter in one.parameters():
                    parameter.mul_(1.1)
        slow_training.average_weights(found, dict(ref.named_parameters()), steps, share)
        average_weights(expected, dict(model.named_parameters()), steps, share)
    torch.testing.assert_close(found, expected)


# whole runs


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_a_run_of_the_reference_loses_what_one_of_the_fast_path_loses(data: Data, name: str, kind: str) -> None:
    chosen: dict[str, Any] = {"optimizer": kind, "steps": 20, "eval_every": 10}
    chosen |= {"accumulation": 2, "gradient_clip": 0.5, "average": 0.3}
    state, (_, history) = fast(data, SHAPES[name], **chosen), reference(data, SHAPES[name], **chosen)
    assert history.train_rows[-1]["loss"] < 0.9 * history.train_rows[0]["loss"]
    for found, expected in (
        (history.train_rows, state.train_rows),
        (history.validation_rows, state.validation_rows),
    ):
        assert [row["step"] for row in found] == [row["step"] for row in expected]
        assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-4)
    for key, near in (("gradient_norm", 1e-2), ("learning_rate", 1e-6)):
        ours, theirs = ([row[key] for row in rows] for rows in (history.train_rows, state.train_rows))
        assert ours == pytest.approx(theirs, rel=near)
    assert history.best_step == state.best_step
    assert history.best_loss == pytest.approx(state.best_loss, rel=1e-4)


def test_the_weights_with_the_lowest_validation_loss_are_kept_and_the_last_ones_beside_them(data: Data) -> None:
    model, history = reference(data, steps=12, eval_every=4, learning_rate=30.0)  # far too high
    losses = {row["step"]: row["loss"] for row in history.validation_rows}
    assert history.best_step == min(losses, key=losses.__getitem__) != 12
    torch.testing.assert_close(history.last, dict(model.named_parameters()), check_stride=False)
    assert any(not torch.equal(weight, history.last[name]) for name, weight in history.best.items())


def test_the_mean_of_the_weights_is_kept_where_one_is_asked_for(data: Data) -> None:
    model, history = reference(data, steps=6, average=0.9)
    newest = dict(model.named_parameters())
    assert all(not torch.equal(weight, newest[name]) for name, weight in history.last.items())


def test_dropout_is_the_same_with_the_same_seed(data: Data) -> None:
    runs = [reference(data, {"dropout": 0.3}, steps=3)[1] for _ in range(2)]
    assert runs[0].train_rows == runs[1].train_rows
    assert runs[0].train_rows != reference(data, steps=3)[1].train_rows


def test_a_loss_that_is_no_number_ends_the_run_in_a_sentence(data: Data) -> None:
    with pytest.raises(ValueError, match=r"Training diverged at step \d+: .*(nan|inf). Set train.learning_rate lower"):
        reference(data, steps=30, learning_rate=1e38, optimizer="adamw")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"train__init_from": "data/model"},
            "train.init_from is 'data/model'; the reference implementation takes None",
        ),
        (
            {"train__init_from": "x", "train__lora_rank": 4},
            "train.lora_rank is 4; the reference implementation takes 0",
        ),
        ({"train__device": "cuda"}, "train.device is 'cuda'; the reference implementation takes 'auto' or 'cpu'"),
        (
            {"train__precision": "bf16"},
            "train.precision is 'bf16'; the reference implementation takes 'auto' or 'fp32'",
        ),
        ({"train__compile": True}, "train.compile is True; the reference implementation takes 'auto' or False"),
    ],
)
def test_what_the_reference_cannot_follow_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(params(**changes), Paths(Path("scratch")))
    assert told in str(refused.value)
    assert "scratch/params.yaml" in str(refused.value)


def test_parameters_that_it_can_follow_are_taken() -> None:
    check(params(), Paths())


def test_a_model_of_the_reference_opens_as_one_of_the_fast_path(
    data: Data, characters: Tokenizer, tmp_path: Path
) -> None:
    model, history = reference(data, steps=6)
    save_model(tmp_path / "model", model.config, history.best, characters, {})
    opened, _ = load(tmp_path / "model")
    model.load_state_dict(opened.state_dict())
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(opened(tokens), model.eval()(tokens), rtol=1e-4, atol=1e-5)
