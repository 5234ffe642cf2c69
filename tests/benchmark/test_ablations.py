"""The ablations: every entry is sound, nothing runs twice, tables are renewed in place, and the law is found."""

import dataclasses
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import ablation_tables, ablations, scaling
from benchmark.ablations import Entry
from benchmark.common import parameters
from tests.conftest import ROOT
from tinygpt import config, yaml_files
from tinygpt.bench import figures
from tinygpt.experiments.runs import Run

PLAN = ablations.plan()


def result(entry: Entry, seed: int, bits: float, code: str = "now") -> Run:
    """What a run of an entry would leave."""
    settings = {key: value for key, value in entry.settings.items() if not key.startswith("download.")}
    name, facts = f"{entry.name}-{seed}", {"text": "t", "code": code}
    return Run(name, "commit", seed, settings | facts, bits, 4.0, 1000, 10**12, entry.settings["train.steps"], 10**6)


class Queue:
    """In the place of DVC: it notes what is queued, and has done it by the next look."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries, self.queued, self.done = PLAN, list[str](), dict[str, Run]()
        self.code, self.fails = "now", False
        monkeypatch.setattr(ablations, "RESULTS", folder / "results.jsonl")
        monkeypatch.setattr(ablations, "dvc", self.dvc)
        monkeypatch.setattr(ablations, "start_workers", self.start_workers)
        monkeypatch.setattr("tinygpt.experiments.runs.of_experiments", self.of_experiments)
        monkeypatch.setattr("tinygpt.experiments.runs.code_here", lambda _: self.code)
        monkeypatch.setattr("time.sleep", lambda _: None)

    def dvc(self, *words: str) -> str:
        if words[:2] == ("exp", "run"):
            name = words[words.index("--name") + 1]
            seeds = next(word for word in words if word.startswith("seed=")).removeprefix("seed=").split(",")
            self.queued += [f"{name}-{i + 1}" for i in range(len(seeds))] if len(seeds) > 1 else [name]
        if words[:2] == ("queue", "status"):
            waiting = [name for name in self.queued if name not in self.done]
            return "".join(f"abc {name} 08:00 PM {'Failed' if self.fails else 'Queued'}\n" for name in waiting)
        return ""

    def start_workers(self) -> None:
        for name in self.queued if not self.fails else ():
            entry = next(e for e in PLAN if e.name == name.rpartition("-")[0])
            self.done[name] = result(entry, int(name.rpartition("-")[2]), 2.4, self.code)

    def of_experiments(self, pattern: str = "*", baseline: str = "*") -> list[Run]:
        return [self.done[pattern]] if pattern in self.done else []


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(tmp_path, monkeypatch)


def entry(name: str) -> Entry:
    return next(e for e in PLAN if e.name == name)


@pytest.mark.parametrize("each", PLAN, ids=lambda each: each.name)
def test_every_entry_is_one_that_params_yaml_allows(each: Entry) -> None:
    params = config.check(parameters(each.settings), each.name)
    assert params.model.context_length <= 256
    assert params.tokenize.vocab_size <= 2000


def test_the_base_leaves_nothing_that_changes_a_loss_to_the_defaults() -> None:
    values = yaml_files.read_yaml(ROOT / "params.yaml")
    wanted = {f"{section}.{key}" for section in ("tokenize", "model", "train") for key in values[section]}
    assert wanted <= set(entry("default").settings)


def test_no_two_entries_are_the_same_and_each_has_its_reason() -> None:
    assert len({str(sorted(e.settings.items(), key=str)) for e in PLAN}) == len({e.name for e in PLAN}) == len(PLAN)
    for item in yaml_files.read_yaml(ablations.PLAN)["ablations"]:
        assert item["reason"]
        assert set(item) <= {"name", "group", "set", "reason", "seeds", "same_time"}


def test_a_repeat_at_the_same_time_has_the_steps_that_fit(tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    times.write_text('{"fp32": 2.0, "gelu": 1.01, "wide-1x144": 0.5}')
    repeats = {e.name: e for e in ablations.plan(times=times) if e.group == "time"}
    base = entry("default").settings["train.steps"]
    assert {name: e.settings["train.steps"] for name, e in repeats.items()} == {
        "fp32-time": base // 2,
        "wide-1x144-time": base * 2,
    }
    assert repeats["fp32-time"].settings["train.precision"] == "fp32"


def test_what_is_there_is_not_run_again(queue: Queue) -> None:
    chosen = [entry("gelu"), entry("layernorm")]
    ablations.run(chosen)
    assert sorted(queue.queued) == [f"{e}-{seed}" for e in ("gelu", "layernorm") for seed in (1, 2, 3)]
    assert {run.name for run in ablations.load_results()} == set(queue.queued)
    ablations.run(chosen)
    assert len(queue.queued) == 6


def test_a_stopped_call_is_gone_on_with_where_dvc_stands(queue: Queue) -> None:
    """One run is in DVC's experiments, one still in its queue, one nowhere."""
    queue.done["gelu-2"] = result(entry("gelu"), 2, 2.4)
    queue.queued.append("gelu-3")
    ablations.run([entry("gelu")])
    assert queue.queued == ["gelu-3", "gelu-1"]
    assert [run.seed for run in ablations.load_results()] == [1, 2, 3]


def test_other_code_runs_again_and_takes_the_place_of_the_older(queue: Queue) -> None:
    ablations.run([entry("gelu")])
    queue.code = "later"
    queue.done.clear()
    queue.queued.clear()
    ablations.run([entry("gelu")])
    assert len(queue.queued) == 3
    found = ablations.load_results()
    assert [(run.seed, run.settings["code"]) for run in found] == [(1, "later"), (2, "later"), (3, "later")]


def test_a_run_that_failed_is_named_with_the_next_step(queue: Queue) -> None:
    queue.fails = True
    with pytest.raises(RuntimeError, match=r"holds no result of gelu-1 gelu-2 gelu-3; `dvc queue logs` says why"):
        ablations.run([entry("gelu")])


def test_a_run_of_other_settings_or_another_seed_is_no_run_of_an_entry() -> None:
    gelu = entry("gelu")
    good = result(gelu, 1, 2.4)
    longer = dataclasses.replace(good, settings=good.settings | {"train.steps": 999})
    shorter = dataclasses.replace(good, settings={k: v for k, v in good.settings.items() if k != "model.mlp"})
    assert gelu.of([longer, shorter, dataclasses.replace(good, seed=9), good]) == [good]
    assert entry("default").of([good]) == []
    assert gelu.of([good], code="other") == []


def test_the_results_that_are_kept_are_runs_of_the_plan() -> None:
    """Also once params.yaml, and so the base of the plan, has more settings: LATER says what the older runs had."""
    results = ablations.load_results()
    assert sum(len(each.of(results)) for each in ablations.plan()) == len(results) > 100


def test_tables_are_renewed_in_place_and_prose_stays() -> None:
    place = "<!-- table: {} -->\n\n{}\n\n<!-- end -->\n"
    page = f"Before.\n{place.format('shape', 'old')}Between.\n{place.format('time', 'old, too')}After.\n"
    once = ablation_tables.renewed(page, "shape", ["| new |"])
    assert once == page.replace("old\n", "| new |\n")
    assert ablation_tables.renewed(once, "shape", ["| new |"]) == once
    with pytest.raises(ValueError, match=r"no place for the table other: write <!-- table: other -->"):
        ablation_tables.renewed(page, "other", [])


def test_the_page_has_a_place_for_every_group_of_the_plan() -> None:
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    for name in ({e.group for e in PLAN} | {"runs"}) - {"default"}:
        assert page.count(f"<!-- table: {name} -->") == 1


def test_a_table_shows_mean_spread_and_whether_that_is_beyond_the_seeds() -> None:
    shown = [entry(name) for name in ("default", "gelu", "layernorm", "no-qk-norm", "tied")]
    bits: dict[str, Sequence[float]] = {
        "default": (2.40, 2.41, 2.39),
        "gelu": (2.60, 2.61, 2.59),
        "layernorm": (2.40, 2.41, 2.405),
        "no-qk-norm": (2.43, 2.42, 2.44),
    }
    known = [result(entry(name), seed, bit) for name, values in bits.items() for seed, bit in enumerate(values, 1)]
    head, _, *rows = ablation_tables.table(shown, known)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert head.count("|") == rows[0].count("|")
    assert [row[0] for row in cells] == ["default", "layernorm", "no-qk-norm", "gelu"]  # best first; tied has no runs
    assert cells[3][1:5] == ["`model.mlp=gelu`", "1.00", "2.600 ± 0.010", "3"]
    assert cells[3][5].startswith("+0.200 (+0.177 to +0.223")
    assert [row[-1] for row in cells] == ["", "no", "perhaps", "yes"]


def test_a_plan_not_run_to_its_end_is_owned_up_to() -> None:
    everything = [result(each, seed, 2.4) for each in PLAN for seed in each.seeds]
    assert "not been run to its end" in " ".join(ablation_tables.run_counts(PLAN, everything[1:]))
    assert "not been run to its end" not in " ".join(ablation_tables.run_counts(PLAN, everything))


def test_mixed_versions_of_the_code_are_owned_up_to() -> None:
    known = [result(entry("gelu"), 1, 2.4), result(entry("gelu"), 2, 2.4, "older")]
    assert "more than one version" in " ".join(ablation_tables.run_counts(PLAN, known))
    assert "more than one version" not in " ".join(ablation_tables.run_counts(PLAN, known[:1]))


@pytest.mark.parametrize("law", [scaling.Law(1.5, 0.7, 0.25), scaling.Law(0.0, 2.0, 0.1), scaling.Law(2.0, 0.3, 1.1)])
def test_the_fit_finds_a_law_that_was_planted(law: scaling.Law) -> None:
    compute = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    found = scaling.fit(compute, [law.loss(c) for c in compute])
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(law), abs=2e-3)
    noise = np.random.default_rng(1).normal(0, 0.003, len(compute))
    noisy = scaling.fit(compute, [law.loss(c) + float(e) for c, e in zip(compute, noise, strict=True)])
    assert noisy.loss(6.4) == pytest.approx(law.loss(6.4), abs=0.02)


def sized(size: int, flops: float, bits: float) -> Run:
    return Run("", "", 1, {"model.n_layer": 1, "model.n_embd": size}, bits, 4.0, 1000, int(flops), 10, size)


def test_the_frontier_is_the_best_of_each_budget_that_two_sizes_were_tried_at() -> None:
    alone, worse, better = sized(1, 1e11, 3.0), sized(1, 2.0e11, 2.8), sized(2, 2.1e11, 2.7)
    assert scaling.frontier([better, alone, worse, sized(2, 4e11, 2.6), sized(2, 4.1e11, 2.5)]) == [better]


def test_the_forecast_is_told_with_how_far_any_one_budget_moves_it() -> None:
    law = scaling.Law(1.5, 0.7, 0.25)
    best = [sized(1, c * 1e12, law.loss(c)) for c in (0.1, 0.2, 0.4, 0.8, 1.6)]
    best[2] = dataclasses.replace(best[2], bits_per_byte=best[2].bits_per_byte + 0.02)
    whole, least, most = scaling.forecasts(best, 3.2)
    assert least <= whole <= most
    assert most - least > 0.005


def test_the_figure_is_drawn_the_same_every_time(tmp_path: Path) -> None:
    sizes = {"1 × 32": [(0.1, 2.9), (0.2, 2.7)], "2 × 48": [(0.2, 2.75), (0.4, 2.6)]}
    for name in ("one.png", "two.png"):
        figures.scaling(tmp_path / name, sizes, {"3 × 96": [(0.8, 2.5)]}, scaling.Law(2.0, 0.5, 0.3).loss)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_timing_gives_each_entry_a_multiple_of_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    taken: dict[str, Any] = {"default": 1, "batch-16": 3}  # seconds a step; batch-16 takes half as many steps

    def stepper(each: Entry) -> Any:
        while True:
            for _ in range(taken[each.name] - 1):
                next(clock)
            yield

    monkeypatch.setattr(ablations, "stepper", stepper)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert ablations.step_times([entry("default"), entry("batch-16")]) == {"default": 1.0, "batch-16": 1.5}


def test_workers_that_live_on_keep_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DVC's do: they hold whatever the command that started them printed to."""
    program = tmp_path / "dvc"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/worker\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ablations.start_workers()
    worker = int((tmp_path / "worker").read_text())
    os.kill(worker, signal.SIGKILL)  # it is still there, or this would fail
