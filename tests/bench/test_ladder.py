"""The benchmark climbs while there is memory and time, says what it left out, and survives what runs out of either."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import CPU, ROOT, gpt_config, params
from tests.pipeline.test_stages import STAGES, closure, declared
from tinygpt.bench import ladder as benchmark
from tinygpt.bench import measure
from tinygpt.bench.ladder import Ladder, Report
from tinygpt.bench.measure import OUT_OF_MEMORY, TOO_SLOW, Decoding, Job, Training
from tinygpt.model.gpt import GPT
from tinygpt.training import compilation, forecast
from tinygpt.training.state import initial_state

CUDA = torch.device("cuda")
HOLDS = 11  # sequences, in the machine that `pretend` makes


def pretend(job: Job, limit: float) -> dict[str, Any]:
    """A machine that multiplies at 10 TFLOP/s, takes 100 ms a step, and runs out of memory above HOLDS sequences."""
    if job.kind == "peak":
        return {"flops_per_second": 1e13}
    if job.kind == "decoding":
        return {"parameters": 1000, "tokens_per_second": 10.0 * job.batch}
    if job.batch > HOLDS:
        return {"problem": OUT_OF_MEMORY}
    cost = {"memory": job.batch, "forecast": job.batch, "forecast_a_sequence": 1}
    speed = 100.0 * min(job.batch, 4) + job.batch
    return {"parameters": 1000, "tokens_per_second": speed, "step": 0.1, "flops_per_second": 1e12, **cost}


def climb(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, budget: float = 1000, free: int = 2**40, **asked: Any
) -> Report:
    monkeypatch.setattr(benchmark, "fresh", pretend)
    monkeypatch.setattr(benchmark, "free_memory", lambda _: free)
    report = Report("a machine")
    ladder = Ladder(params(), device, budget, lambda _: None, report)
    chosen: dict[str, Any] = {"sizes": ["0.2M"], "precision": "fp32", "compiled": False}
    return ladder.climb(**(chosen | asked))


def test_the_largest_batch_that_fits_is_found_by_quadrupling_and_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    report = climb(monkeypatch, CUDA)
    assert [row.batch for row in report.training] == [1, 4, 16, 10, 13, 11, 12]
    assert report.largest() == {"0.2M": HOLDS}
    assert "0.2M fp32: the largest batch that fits is 11; 12 does not." in report.notes


def test_the_fastest_batch_is_the_one_of_most_tokens_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert climb(monkeypatch, CUDA).fastest()["0.2M"]["batch"] == HOLDS


def test_on_a_cpu_no_batch_is_tried_that_the_forecast_says_will_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ladder, "refusal", lambda *_: "")
    report = climb(monkeypatch, CPU, free=7)
    assert [row.batch for row in report.training] == [1, 4]
    assert "0.2M fp32: batch 16 is left out: it should take 16 bytes, of 7." in report.notes


def test_the_ladder_stops_where_time_runs_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    report = climb(monkeypatch, CPU, budget=benchmark.STARTING + 0.5)
    assert [row.batch for row in report.training] == [1]  # another process would not start in what is left
    assert report.notes[0].startswith("0.2M fp32: stopped at batch 1, where time ran out; by the forecast about")
    report = climb(monkeypatch, CPU, budget=1)
    assert not report.training
    assert "set --budget higher" in report.notes[0]


def test_a_model_that_does_not_fit_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    report = climb(monkeypatch, CPU, sizes=["0.2M", "85M"], free=10**9)
    assert {row.size for row in report.training} == {"0.2M"}
    assert any(note.startswith("85M is left out: its weights and their gradients take") for note in report.notes)


def test_compiled_rows_are_measured_at_the_fastest_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "missing", lambda _: "")
    rows = climb(monkeypatch, CUDA, compiled=None).training
    assert [row.batch for row in rows if row.compiled] == [HOLDS]


def test_precisions_that_the_machine_does_not_multiply_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    chosen, notes = benchmark.precisions("all", CPU)
    assert chosen == ["fp32"]
    assert [note.split()[0] for note in notes] == ["bf16", "fp16"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert benchmark.precisions("all", CPU)[0] == ["fp32", "bf16"]


def test_an_unknown_size_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"no size '2M'; choose from 0\.2M"):
        benchmark.run(params(), ["2M"], 1, "cpu", "all", False, print)


def job(kind: Any, batch: int = 2) -> Job:
    config = params().model.model_dump() | {"vocab_size": 61}
    return Job(kind, "cpu", batch=batch, config=config, settings=params().train.model_dump())


def test_a_real_row_holds_what_was_measured_beside_what_was_forecast() -> None:
    row = Training(**measure.perform(job("training")))
    state = initial_state(gpt_config(), params().train, 1, CPU, "fp32")
    cost = forecast.count(state, params(train__batch_size=2).train, 1, "fp32")
    assert (row.parameters, row.forecast, row.forecast_a_sequence) == (
        cost.parameters,
        cost.memory,
        cost.memory_a_sequence,
    )
    assert min(row.tokens_per_second, row.step, row.flops_per_second, row.starting) > 0
    assert row.batch == 2
    assert Decoding(**measure.perform(job("decoding"))).tokens_per_second > 0


def test_weights_to_decode_with_are_drawn_before_they_are_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a generator of the CPU would be refused."""
    order: list[str] = []

    def noted(name: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            order.append(name)
            return honest(*given)

        return call

    for name in ("initialise", "to"):
        monkeypatch.setattr(GPT, name, noted(name, getattr(GPT, name)))
    assert measure.decode(gpt_config(), 2, CPU, limit=0.1).tokens_per_second > 0
    assert order == ["initialise", "to"]


def test_running_out_of_memory_is_a_row_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(measure, "measure", fail)
    assert measure.perform(job("training")) == {"problem": OUT_OF_MEMORY}


@pytest.mark.parametrize(("status", "expected"), [(-9, OUT_OF_MEMORY), (None, TOO_SLOW)])
def test_a_process_that_the_system_ends_is_a_row(
    monkeypatch: pytest.MonkeyPatch, status: int | None, expected: str
) -> None:
    def end(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if status is None:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, status, "", "")

    monkeypatch.setattr(subprocess, "run", end)
    assert measure.fresh(job("training"), 1) == {"problem": expected}


def test_a_row_counts_whatever_happens_to_its_process_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = "import atexit, os\natexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(lines, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    assert measure.fresh(job("decoding"), 60)["tokens_per_second"] > 0


def test_the_report_is_written_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = climb(monkeypatch, CUDA, sizes=["0.2M", "1.3M"], precision="fp32")
    benchmark.write(report, tmp_path)
    names = ["benchmark_decoding.png", "benchmark_memory.png", "benchmark_training.png", "results.json", "table.md"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| 0.2M | 64 | 4 | fp32 | 404 | 0% | 100 | 10% |" in table
    assert "| 0.2M | 64 | 16 | fp32 | out of memory |" in table


def test_its_pipeline_names_every_module_that_measures_and_is_no_part_of_the_other() -> None:
    (stage,) = yaml.safe_load((ROOT / "benchmark/dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    assert declared(stage["deps"]) == closure("tinygpt/bench/ladder.py")
    command = shlex.split(stage["cmd"])
    assert command[:4] == ["python", "-m", "tinygpt", "benchmark"]
    assert not any("benchmark" in str(part) for part in STAGES.values())
