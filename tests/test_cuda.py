"""On a CUDA device recorded work gives the bits of plain work, and the rest of the promises hold there, too.

Skipped where there is no such device: `pytest tests/test_cuda.py` on a machine that has one.
"""

import copy
import dataclasses
import threading
from typing import Any

import pytest
import torch

from tests.conftest import CPU, GPT2, gpt, gpt_config
from tests.small_training import Data, settings, start, vocab_size
from tinygpt.bench import measure
from tinygpt.data.dataset import training_batches
from tinygpt.generation.generate import generate_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.gpt import GPT
from tinygpt.model.hardware import autocast
from tinygpt.model.loss import cross_entropy
from tinygpt.scratch import gpt as reference_gpt
from tinygpt.scratch import train as reference
from tinygpt.training import compilation, forecast
from tinygpt.training.loop import train
from tinygpt.training.state import State

CUDA = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
PROMPTS = [[3], [1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [1, 4, 1, 5, 9, 2, 6]]


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each replay of what was recorded."""
    seen: list[int] = []
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        seen.append(1)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    return seen


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded any more."""
    monkeypatch.setattr(CUDAGraphRunner, "__call__", lambda _self, work, _used: work())


def trained(data: Data, chosen: Any, precision: str, device: torch.device = CUDA, **shape: Any) -> State:
    state = start(data, chosen, precision, device, **shape)
    for _ in train(state, chosen, data, 3, precision):
        pass
    return state


def same(first: State, second: State) -> bool:
    """To the bit, everything that would be saved."""
    one, other = first.tensors(), second.tensors()
    assert one.keys() == other.keys()
    return first.metadata() == second.metadata() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_recorded_training_gives_the_bits_of_plain_training(
    data: Data,
    monkeypatch: pytest.MonkeyPatch,
    replays: list[int],
    optimizer: str,
    precision: str,
    accumulation: int,
    dropout: float,
) -> None:
    chosen = settings(steps=23, optimizer=optimizer, accumulation=accumulation, average=0.5)
    recorded = trained(data, chosen, precision, dropout=dropout)
    assert len(replays) > 20
    plain(monkeypatch)
    assert same(recorded, trained(data, chosen, precision, dropout=dropout))
    assert recorded.validation_rows[-1]["loss"] < recorded.validation_rows[0]["loss"]
    assert [row["step"] for row in recorded.health_rows] == [1, 11, 21]
    assert len({row["activation_scale"] for row in recorded.health_rows}) == 3


def test_recorded_changes_of_low_rank_learn_the_bits_of_plain_ones(
    data: Data, monkeypatch: pytest.MonkeyPatch, replays: list[int]
) -> None:
    chosen = settings(steps=12, lora_rank=2, init_from="a model")
    recorded = trained(data, chosen, "fp32")
    assert len(replays) > 10
    plain(monkeypatch)
    assert same(recorded, trained(data, chosen, "fp32"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(data: Data, optimizer: str, precision: str) -> None:
    chosen = settings(steps=12, accumulation=2, eval_every=4, optimizer=optimizer, average=0.5)
    whole = trained(data, chosen, precision, dropout=0.1)
    state = start(data, chosen, precision, CUDA, dropout=0.1)
    for stop in (1, 5, 11):
        for _ in train(state, chosen, data, 3, precision):
            if state.step == stop:
                break
        kept = {name: tensor.clone() for name, tensor in state.tensors().items()}, copy.deepcopy(state.metadata())
        state = start(data, chosen, precision, CUDA, dropout=0.1)
        state.check(*kept)
        state.restore(*kept)
        forecast.count(state, chosen, 1000, precision)  # as before a run: leaves it as it is
        forecast.seconds_left(state, chosen, 1000, precision)
    for _ in train(state, chosen, data, 3, precision):
        pass
    assert same(state, whole)


@pytest.mark.parametrize("shape", [{}, GPT2], ids=["qwen3", "gpt2"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_gpu_learns_what_a_cpu_and_the_reference_implementation_learn(
    data: Data, optimizer: str, shape: dict[str, Any]
) -> None:
    chosen = settings(steps=12, optimizer=optimizer)
    losses = [
        [row["loss"] for row in trained(data, chosen, "fp32", device, **shape).train_rows] for device in (CUDA, CPU)
    ]
    readable = reference_gpt.GPT(gpt_config(vocab_size(data), **shape))
    readable.initialise(torch.Generator().manual_seed(3))
    losses.append([row["loss"] for row in reference.train(readable, chosen, data, 3).train_rows])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert losses[0] == pytest.approx(losses[2], rel=2e-3)


def test_an_fp16_overflow_skips_the_step_and_training_goes_on(data: Data) -> None:
    chosen = settings(steps=12)
    state = start(data, chosen, "fp16", CUDA)
    state.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24)
    for _ in train(state, chosen, data, 3, "fp16"):
        pass
    skipped = [row["gradient_norm"] == 0.0 for row in state.train_rows]
    assert skipped[0]
    assert not skipped[-1]
    assert all(parameter.isfinite().all() for parameter in state.model.parameters())


@pytest.mark.skipif(bool(compilation.missing(CUDA)), reason="no compiler here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_run_is_recorded_too_and_equals_an_eager_one_but_for_rounding(
    data: Data, precision: str, replays: list[int]
) -> None:
    chosen = settings(steps=12)
    runs = []
    for compiled in (False, True):
        state = start(data, chosen, precision, CUDA)
        if compiled:
            compilation.compile_blocks(state.model)
        for _ in train(state, chosen, data, 3, precision):
            pass
        runs.append([row["loss"] for row in state.train_rows])
        assert len(replays) > 5
        replays.clear()
    assert runs[0] != runs[1]
    assert runs[0] == pytest.approx(runs[1], rel=1e-3 if precision == "fp32" else 2e-2)


def continued(model: GPT, use_cache: bool, rows: int, end_of_text: int = -1) -> list[list[int | None]]:
    greedy = [Sampling(temperature=0.0)] * rows
    return [*generate_ids(model, PROMPTS[:rows], greedy, [*range(rows)], 40, {end_of_text}, use_cache)]


@pytest.mark.parametrize("rows", [1, 4])
def test_recorded_decoding_writes_what_the_uncached_model_writes(
    shape: dict[str, Any], rows: int, replays: list[int]
) -> None:
    """Past the end of a context of 16, and with rows that end before others."""
    model = gpt(**shape).to(CUDA)
    expected = continued(model, False, rows)
    assert continued(model, True, rows) == expected
    assert replays
    end = expected[7][0]
    assert end is not None
    assert continued(model, True, rows, end) == continued(model, False, rows, end)


def test_threads_that_record_at_once_do_not_disturb_each_other() -> None:
    models = [gpt(seed=seed).to(CUDA) for seed in range(6)]
    expected = [continued(model, False, 4) for model in models]
    found: dict[int, list[list[list[int | None]]]] = {number: [] for number in range(len(models))}

    def write(number: int) -> None:
        for _ in range(5):
            found[number].append(continued(models[number], True, 4))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [once] * 5 for number, once in enumerate(expected)}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_the_memory_forecast_is_within_a_tenth(precision: str, batch: int) -> None:
    """At 10 million parameters and a context of 256; what small models take never matters."""
    config = dataclasses.asdict(gpt_config(2000, n_layer=6, n_head=6, n_embd=384, context_length=256))
    job = measure.Job("training", "cuda", precision, False, "10M", batch, config, settings().model_dump())
    row = measure.fresh(job, 100)
    assert row["forecast"] == pytest.approx(row["memory"], rel=0.1)


def test_a_batch_is_used_up_before_the_next_is_copied(data: Data) -> None:
    """Page-locked copies run beside the steps: each step still sees its own batch."""
    chosen = settings(steps=40, optimizer="adamw", learning_rate=1e-12, schedule="constant")
    state, by_hand = (start(data, chosen, "fp32", CUDA) for _ in range(2))
    for parameters in (state.model.parameters(), by_hand.model.parameters()):  # so that losses differ
        generator = torch.Generator().manual_seed(1)
        for parameter in parameters:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    for _ in train(state, chosen, data, 3, "fp32"):
        pass
    for row, (inputs, targets) in zip(
        state.train_rows, training_batches(data["train"], 4, seed=3, start=0, stop=40), strict=True
    ):
        with torch.no_grad(), autocast(CUDA, "fp32"):
            logits = by_hand.model(inputs.to(CUDA))
        loss = cross_entropy(logits, targets.to(CUDA), "mean").item()
        assert row["loss"] == pytest.approx(loss, rel=1e-4)
