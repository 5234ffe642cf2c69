"""Task scores are drawn, compared between sets of runs, and shown in the report; without any, nothing is shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.experiments.test_compare import ADAMW, MUON
from tests.report.test_report import EVALUATION, Parsed
from tinygpt.experiments.artifacts import Outputs
from tinygpt.experiments.compare import Side, pair, summary
from tinygpt.experiments.runs import Run
from tinygpt.plots.curves import task_bars
from tinygpt.report import build

ADD: dict[str, float] = {"score": 0.5, "low": 0.4, "high": 0.6, "items": 100, "chance": 0.25, "oracle": 1.0}
NUMBERS = {"add": ADD | {"five_gram": 0.2, "before": 0.3}, "ends_greedy": {"score": 1.0, "low": 0.9, "high": 1.0}}


def scored(runs: list[Run], **scores: list[float]) -> list[Run]:
    return [replace(run, tasks={name: values[i] for name, values in scores.items()}) for i, run in enumerate(runs)]


def compared(a: list[Run], b: list[Run]) -> list[str]:
    return summary(pair(Side("muon", a), Side("adamw", b)))


def test_a_comparison_shows_the_tasks_that_all_runs_have() -> None:
    a = scored(MUON, add=[0.5, 0.6, 0.7], copy=[1.0, 1.0, 1.0])
    lines = compared(a, scored(ADAMW, add=[0.1, 0.2, 0.3]))
    head, add = lines[-2:]
    assert head.split() == ["task,", "%", "A", "B", "B", "−", "A", "95%", "interval"]
    # Welch's: both variances are 100, so 4 degrees of freedom, 2.776 standard errors of 8.165
    assert add.split() == ["add", "60.0", "±", "10.0", "20.0", "±", "10.0", "-40.0", "-62.7", "to", "-17.3"]
    assert compared(MUON, ADAMW) == lines[:-2]


def test_single_runs_are_compared_without_a_spread() -> None:
    lines = compared(scored(MUON[:1], add_exact_match=[0.5]), scored(ADAMW[:1], add_exact_match=[0.75]))
    assert lines[-1].split() == ["add,", "exact", "match", "50.0", "75.0", "+25.0", "–"]


def test_a_row_of_results_of_before_there_were_tasks_is_still_read() -> None:
    fields = {name: value for name, value in vars(MUON[0]).items() if name != "tasks"}
    assert Run(**fields) == MUON[0]


def report(tmp_path: Path, *evaluations: dict[str, Any]) -> Parsed:
    runs = [Outputs(run, evaluation=each) for run, each in zip(MUON, evaluations, strict=False)]
    build.write(tmp_path / "report.html", runs)
    return Parsed(tmp_path / "report.html")


def test_the_report_shows_the_tasks_of_each_run(tmp_path: Path) -> None:
    other = {"add": ADD | {"score": 0.75, "low": 0.65, "high": 0.85, "five_gram": 0.1}}
    found = report(tmp_path, EVALUATION | {"tasks": NUMBERS}, EVALUATION | {"tasks": other})
    cells = ["add", "50.0% (40.0 to 60.0%)", "75.0% (65.0 to 85.0%)", "25.0%", "–", "100.0%"]
    assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in found.source
    assert "<td>ends greedy</td><td>100.0% (90.0 to 100.0%)</td><td>–</td>" in found.source
    assert "tasks" in found.places


def test_a_report_without_tasks_has_no_section_for_them(tmp_path: Path) -> None:
    assert "tasks" not in report(tmp_path, EVALUATION).places


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        task_bars(tmp_path / f"{name}.png", NUMBERS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    task_bars(tmp_path / "c.png", {"add": NUMBERS["add"] | {"five_gram": 0.9}})
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()
