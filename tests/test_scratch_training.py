"""The slow twins of training take the same steps as the fast path: clipping, schedules, AdamW, Muon, and whole runs."""

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.train import choose_compiling
from tests.conftest import CPU, SHAPES, gpt, gpt_config, params
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.data.dataset import training_batches
from tinygpt.model.hardware import autocast
from tinygpt.scratch import loss as slow_loss
from tinygpt.scratch import optimizers as slow
from tinygpt.scratch import training as slow_training
from tinygpt.scratch.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training import optimizer
from tinygpt.training.loop import average_weights, clip_gradients, train, train_step
from tinygpt.training.state import State, initial_state

Data = dict[str, np.ndarray]


def settings(**changes: Any) -> Any:
    return params(**{f"train__{key}": value for key, value in changes.items()}).train


def twins(**changes: Any) -> tuple[Any, Any]:
    model = gpt(**changes)
    twin = GPT(model.config)
    twin.load_state_dict(model.state_dict())
    return model, twin


def gradients(model: Any, seed: int, size: float = 1.0) -> list[Tensor]:
    """Random ones, set as those of the model."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=random)
    return [parameter.grad for parameter in model.parameters()]


def started(data: Data, implementation: str, precision: str = "fp32", shape: Any = None, **changes: Any) -> State:
    chosen = settings(implementation=implementation, **changes)
    config = gpt_config(int(data["train"].max()) + 1, **(shape or {}))
    return initial_state(config, chosen, seed=3, device=CPU, precision=precision)


def run(state: State, data: Data, count: int, precision: str = "fp32", **changes: Any) -> State:
    chosen = settings(implementation=state.implementation, **changes)
    steps = train(state, chosen, data, 3, precision)
    for _ in range(count):
        next(steps)
    return state


# the parts of a step


@pytest.mark.parametrize("size", [(6, 6), (4, 9), (9, 4), (1, 5)])
def test_newton_schulz_is_that_of_the_fast_path(size: tuple[int, int]) -> None:
    matrix = torch.randn(size, generator=torch.Generator().manual_seed(1))
    expected = optimizer.orthogonalise(matrix[None])[0]
    torch.testing.assert_close(slow.newton_schulz(matrix), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("name", ["qwen3", "qwen3-tied", "qwen3-grouped", "gpt2"])
def test_the_same_gradients_move_every_parameter_alike(name: str, kind: str) -> None:
    model, twin = twins(**SHAPES[name])
    chosen = settings(optimizer=kind, weight_decay=0.3, betas=[0.8, 0.9])
    pairs: list[Any] = [(model, optimizer.build(model, chosen)), (twin, slow_training.build(twin, chosen))]
    for step in range(6):
        for one, optimizers in pairs:
            gradients(one, step, 10.0**-step)
            if step == 2:
                one.norm.weight.grad = None  # what has no gradient stays where it is, and forgets nothing
            optimizers.step(0.01 * (step + 1))
            optimizers.zero_grad()
            assert all(parameter.grad is None for parameter in one.parameters())
        found, expected = (dict(one.named_parameters()) for one in (twin, model))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_muon_iterates_in_bf16_where_it_is_told_to() -> None:
    start = torch.randn(24, 16, generator=torch.Generator().manual_seed(1))
    moved = {}
    for name, dtype in (("fast", torch.bfloat16), ("scratch", torch.bfloat16), ("exact", torch.float32)):
        parameter = torch.nn.Parameter(torch.zeros(24, 16))
        parameter.grad = start.clone()
        if name == "fast":
            optimizer.Muon([parameter], lr=1.0, dtype=dtype).step()
        else:
            slow.Muon([slow.grouped([parameter], 0.0)], dtype=dtype).step(1.0)
        moved[name] = parameter.detach()
    size = moved["exact"].norm()
    assert (moved["scratch"] - moved["fast"]).norm() < 0.06 * size  # two digits: as far as bf16 goes
    assert (moved["scratch"] - moved["exact"]).norm() > 0.001 * size


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_optimizers_state_goes_from_either_to_the_other(kind: str, tied: bool) -> None:
    model, twin = twins(tie_embeddings=tied)
    chosen = settings(optimizer=kind)
    fast, scratch = optimizer.build(model, chosen), slow_training.build(twin, chosen)
    for step in range(2):
        for one, optimizers in ((model, fast), (twin, scratch)):
            gradients(one, step)
            optimizers.step(0.01)
    assert fast.shapes() == scratch.shapes() == {name: tensor.shape for name, tensor in scratch.state_dict().items()}
    torch.testing.assert_close(scratch.state_dict(), fast.state_dict(), rtol=1e-5, atol=1e-6)
    scratch.load_state_dict({name: tensor.clone() for name, tensor in fast.state_dict().items()})
    fast.load_state_dict({name: tensor.clone() for name, tensor in scratch.state_dict().items()})
    for one, optimizers in ((model, fast), (twin, scratch)):
        gradients(one, 5)
        optimizers.step(0.01)
    found, expected = (dict(one.named_parameters()) for one in (twin, model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [0.0, 0.5, 1e9])
def test_clipping_shortens_the_same_gradients_by_as_much(limit: float) -> None:
    model, twin = twins()
    found, expected = gradients(twin, 1), gradients(model, 1)
    lengths = (
        slow_training.clip_gradients(twin.parameters(), limit),
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
    model, twin = twins()
    found, expected = ({name: p.detach().clone() for name, p in one.named_parameters()} for one in (twin, model))
    for steps in range(1, 8):
        with torch.no_grad():
            for one in (twin, model):
                for parameter in one.parameters():
                    parameter.mul_(1.1)
        slow_training.average_weights(found, dict(twin.named_parameters()), steps, share)
        average_weights(expected, dict(model.named_parameters()), steps, share)
    torch.testing.assert_close(found, expected)


# whole runs


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_twenty_steps_from_scratch_lose_what_the_fast_path_loses(data: Data, name: str, kind: str) -> None:
    chosen: dict[str, Any] = {"optimizer": kind, "steps": 20, "eval_every": 10}
    chosen |= {"accumulation": 2, "gradient_clip": 0.5, "average": 0.3}
    fast, scratch = (
        run(started(data, one, shape=SHAPES[name], **chosen), data, 20, **chosen) for one in ("fast", "scratch")
    )
    assert isinstance(scratch.model, GPT)
    assert isinstance(scratch.optimizers, slow_training.Optimizers)
    assert scratch.train_rows[-1]["loss"] < 0.9 * scratch.train_rows[0]["loss"]
    for found, expected in ((scratch.train_rows, fast.train_rows), (scratch.validation_rows, fast.validation_rows)):
        assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-4)
    norms = [[row["gradient_norm"] for row in state.train_rows] for state in (scratch, fast)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


def test_a_run_from_scratch_takes_its_loss_clipping_and_mean_from_there(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, average = Mock(wraps=slow_loss.cross_entropy), Mock(wraps=slow_training.average_weights)
    clip = Mock(wraps=slow_training.clip_gradients)
    monkeypatch.setattr(slow_loss, "cross_entropy", loss)
    monkeypatch.setattr(slow_training, "clip_gradients", clip)
    monkeypatch.setattr(slow_training, "average_weights", average)
    for implementation, count in (("fast", 0), ("scratch", 1)):
        run(started(data, implementation, average=0.5), data, 1, average=0.5)
        assert (loss.call_count, clip.call_count, average.call_count) == (count, count, count)


def test_the_step_written_out_is_that_of_the_train_stage(data: Data) -> None:
    chosen = settings(steps=5, implementation="fast", gradient_clip=0.5)
    state = run(started(data, "fast", steps=5, gradient_clip=0.5), data, 5, steps=5, gradient_clip=0.5)
    model = GPT(state.model.config)
    model.initialise(torch.Generator().manual_seed(3))
    optimizers = slow_training.build(model, chosen)
    batches = training_batches(data["train"], 16, 4, seed=3, start=0, stop=5)
    losses = [
        slow_training.train_step(model, optimizers, inputs, targets, chosen, step)
        for step, (inputs, targets) in enumerate(batches)
    ]
    assert losses == pytest.approx([row["loss"] for row in state.train_rows], rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_from_scratch_that_was_stopped_goes_on_to_the_same_bits(data: Data, precision: str) -> None:
    shape = {"dropout": 0.1}
    whole = run(started(data, "scratch", precision, shape), data, 6, precision)
    stopped = run(started(data, "scratch", precision, shape), data, 3, precision)
    resumed = started(data, "scratch", precision, shape)
    resumed.check(stopped.tensors(), stopped.facts())
    resumed.restore({name: tensor.clone() for name, tensor in stopped.tensors().items()}, stopped.facts())
    run(resumed, data, 3, precision)
    assert resumed.train_rows == whole.train_rows
    assert all(torch.equal(whole.tensors()[name], tensor) for name, tensor in resumed.tensors().items())


def test_an_fp16_gradient_is_scaled_back_from_scratch_too(data: Data) -> None:
    lengths = []
    for scale in (1.0, 1024.0):
        state = started(data, "scratch")
        state.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=scale)
        (batch,) = training_batches(data["train"], 16, 4, seed=3, start=0, stop=1)
        train_step(state, batch, settings(implementation="scratch"), autocast(CPU, "fp32"))
        lengths.append(state.train_rows[0]["gradient_norm"])
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)


def test_a_run_from_scratch_is_never_compiled() -> None:
    chosen = settings(implementation="scratch", compile=True)
    assert choose_compiling(chosen, gpt_config(), CPU, "fp32") == (
        False,
        "not compiled: train.implementation is scratch",
    )


def test_a_model_trained_from_scratch_opens_as_a_fast_one(data: Data, characters: Tokenizer, tmp_path: Any) -> None:
    state = run(started(data, "scratch"), data, 6)
    save_model(tmp_path / "model", state.model.config, state.best, characters, {})
    opened, _ = load(tmp_path / "model")
    state.model.load_state_dict(opened.state_dict())
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(opened(tokens), state.model.eval()(tokens), rtol=1e-4, atol=1e-5)
