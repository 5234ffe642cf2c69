"""`tinygpt compare`: Welch's test is right, sets are found, and what differs besides the seed is never overlooked."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.project import Project
from tinygpt.cli import main
from tinygpt.experiments import compare as comparing
from tinygpt.experiments import runs, table
from tinygpt.experiments.compare import by_settings, compare, named, welch
from tinygpt.experiments.runs import Run
from tinygpt.web import models

SETTINGS = {"train.optimizer": "muon", "model.n_layer": 3, "train.learning_rate": 0.01, "text": "t", "code": "c"}


def run(seed: int, bits: float, name: str = "", **changes: Any) -> Run:
    """A run; `section__key=value` changes a setting."""
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    return Run(name or f"run-{seed}", "", seed, settings, bits, 4.0, 1000, 10**12, 100, 10**6)


MUON = [run(1, 2.36), run(2, 2.37), run(3, 2.35)]
ADAMW = [run(seed, bits, train__optimizer="adamw") for seed, bits in ((1, 2.60), (2, 2.62), (3, 2.61))]


def test_welch_is_that_of_an_example_worked_by_hand() -> None:
    # variances 2 and 2, so squared errors of 1 each: t = 4/√2 with 2² / (1 + 1) = 2 degrees of freedom, whose
    # distribution has a closed form: P(|T| > t) = 1 − t/√(2 + t²), and 4.302653 leaves 0.05
    test, t = welch([1, 3], [5, 7]), 4 / math.sqrt(2)
    assert test.difference == 4
    assert test.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    assert (test.low + test.high) / 2 == pytest.approx(4)
    assert test.high - 4 == pytest.approx(4.302653 * math.sqrt(2), rel=1e-6)


def test_the_degrees_of_freedom_are_welchs_where_the_spreads_differ() -> None:
    # variances 1 and 4 of three each: (5/3)² / ((1/9 + 16/9) / 2) = 2.94 degrees, and not the 4 of equal spreads
    test, t = welch([1, 2, 3], [4, 6, 8]), 4 / math.sqrt(5 / 3)
    x = t / math.sqrt(4 + t * t)
    assert 1 - x * (3 - x * x) / 2 < test.p < 1 - t / math.sqrt(2 + t * t)  # between those of 4 and of 2 degrees
    assert test.p == pytest.approx(0.054786766041, rel=1e-9)  # by Gauss and Legendre's rule
    assert (test.low, test.high) == pytest.approx((4 - 4.155399503182, 4 + 4.155399503182), rel=1e-9)
    assert welch([4, 6, 8], [1, 2, 3]).p == pytest.approx(test.p)


def test_samples_without_spread_are_the_same_or_not() -> None:
    assert welch([2.0, 2.0], [2.0, 2.0]).p == 1.0
    assert welch([2.0, 2.0], [2.1, 2.1]).p == 0.0


def test_the_verdict_says_what_the_seeds_allow() -> None:
    def verdict(first: list[Run], second: list[Run]) -> str:
        return by_settings("train.optimizer=muon", "optimizer=adamw", first + second)[0].verdict

    near = [run(seed, bits, train__optimizer="adamw") for seed, bits in ((1, 2.37), (2, 2.35), (3, 2.365))]
    assert verdict(MUON, ADAMW) == "They differ beyond their seeds: A is better."
    assert verdict(MUON, near) == "These seeds cannot tell them apart."
    assert verdict(MUON[:1], ADAMW).startswith("Too few runs: a spread needs at least two of each")


def test_runs_are_compared_only_where_all_else_is_alike() -> None:
    deep = [run(seed, 2.3 + seed / 100, model__n_layer=6) for seed in (1, 2)]
    deep_adamw = [run(seed, 2.5 + seed / 100, model__n_layer=6, train__optimizer="adamw") for seed in (1, 2)]
    found = by_settings("optimizer=muon", "optimizer=adamw", [*deep, *MUON, *deep_adamw, *ADAMW])
    assert [(each.a.runs, each.b.runs) for each in found] == [(MUON, ADAMW), (deep, deep_adamw)]
    assert found[0].differing == {"train.optimizer": ("muon", "adamw")}
    with pytest.raises(ValueError, match=r"the closest also differ in model\.n_layer \(6 \| 3\)"):
        by_settings("optimizer=muon", "optimizer=adamw", [*deep, *ADAMW])


@pytest.mark.parametrize(("key", "value"), [("text", "other"), ("code", "other")])
def test_another_text_or_other_code_counts_as_a_difference(key: str, value: str) -> None:
    other = [run(seed, 2.6, train__optimizer="adamw", **{key: value}) for seed in (1, 2)]
    with pytest.raises(ValueError, match=f"the closest also differ in {key}"):
        by_settings("optimizer=muon", "optimizer=adamw", [*MUON, *other])
    (found,) = by_settings("optimizer=muon", "optimizer=adamw", [*MUON, *other], [key])
    assert found.differing[key] == (SETTINGS[key], "other")


def test_what_both_sides_name_may_differ_and_nothing_else() -> None:
    slow = [dataclasses.replace(r, settings=r.settings | {"train.learning_rate": 0.003}) for r in ADAMW]
    (found,) = by_settings("optimizer=muon", "optimizer=adamw learning_rate=3e-3", [*MUON, *slow])
    assert list(found.differing) == ["train.learning_rate", "train.optimizer"]
    with pytest.raises(ValueError, match=r"runs of optimizer=adamw differ among themselves in train.learning_rate"):
        by_settings("optimizer=muon learning_rate=0.01", "optimizer=adamw", [*MUON, *ADAMW, *slow])


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # no repository: git knows nothing here
    rows = [dataclasses.replace(r, name=f"{r.settings['train.optimizer']}-{r.seed}") for r in MUON + ADAMW]
    rows.append(run(1, 2.2, "deep", model__n_layer=6, train__optimizer="adamw"))
    (tmp_path / "results.jsonl").write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    return tmp_path / "results.jsonl"


def test_where_git_refuses_its_own_reason_is_told(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(reason: str) -> str:
        program = results.parent / "git"
        program.write_text(f"#!/bin/sh\necho 'fatal: {reason}' >&2; exit 128\n", encoding="utf-8")
        program.chmod(0o755)
        with pytest.raises((ValueError, OSError)) as told:
            compare("muon-1", "nobody", results)
        return str(told.value)

    monkeypatch.setenv("PATH", str(results.parent))
    theirs = "detected dubious ownership in repository; call: git config --global --add safe.directory /x"
    assert names(theirs) == f"git refuses this repository: {theirs}"
    assert models.experiments() == []  # `tinygpt web` offers what lies in folders
    assert "and git finds no repository here, and DVC needs one. Clone" in names("not a git repository")
    (results.parent / "git").unlink()
    with pytest.raises(
        ValueError, match="is not a folder, experiment or row of results, and git is not installed here"
    ):
        compare("muon-1", "nobody", results)
    assert compare("muon-1,muon-2", "adamw-*", results)  # rows alone need no git


def test_sets_named_by_rows_that_differ_in_more_than_the_seed_and_one_setting_are_refused(results: Path) -> None:
    (found,) = compare("muon-1,muon-2", "adamw-*", results)
    assert (len(found.a.runs), len(found.b.runs)) == (2, 3)
    with pytest.raises(
        ValueError, match=r"differ in more than the seed and one setting: model.n_layer \(3 \| 6\), train"
    ):
        compare("muon-*", "deep", results)
    assert compare("muon-*", "deep", results, ["model.n_layer", "train.optimizer"])[0].welch is None
    with pytest.raises(ValueError, match="differ among themselves in model"):
        compare("muon-*", "adamw-*,deep", results)
    with pytest.raises(ValueError, match="contain the same run"):
        compare("muon-1,muon-2", "muon-2,muon-3", results)


@pytest.mark.parametrize(
    ("a", "b", "problem"),
    [
        (
            "optimizer=lion",
            "train.optimizer=muon",
            "No known run has train.optimizer=lion. Queue some: dvc",
        ),
        ("train.optimiser=muon", "train.optimizer=muon", "has a setting 'train.optimiser'"),
        ("nowhere", "muon-1", "'nowhere' is not a folder, experiment or row of results"),
        ("muon-1", "optimizer=adamw", "Name both sets by settings"),
        ("=muon", "optimizer=adamw", "'=' is not a setting"),
        ("muon-1,", "adamw-1", "'muon-1,' holds an empty name"),  # which would be the folder that one is in
    ],
)
def test_a_set_that_is_not_there_is_answered_with_the_next_step(results: Path, a: str, b: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace(".", r"\.")):
        compare(a, b, results)


def test_the_same_run_seen_twice_counts_once() -> None:
    again = dataclasses.replace(MUON[0], name="a copy", commit="abc", bits_per_byte=2.3600001)
    assert runs.distinct([*MUON, again]) == MUON


def test_a_results_file_reads_back_and_says_which_line_is_none(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("".join(r.to_json() + "\n" for r in MUON), encoding="utf-8")
    assert runs.of_results(file) == MUON
    file.write_text(MUON[0].to_json() + "\n" + json.dumps({"name": "x"}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 is not a run"):
        runs.of_results(file)


def test_the_command_prints_both_sets_the_difference_and_the_verdict(results: Path) -> None:
    done = CliRunner().invoke(
        main.app, ["compare", "optimizer=muon n_layer=3", "optimizer=adamw n_layer=3", "--results", str(results)]
    )
    assert done.output.splitlines() == [
        "A  optimizer=muon n_layer=3   n = 3  2.3600 ± 0.0100 bits per byte",
        "B  optimizer=adamw n_layer=3  n = 3  2.6100 ± 0.0100 bits per byte",
        "differ in train.optimizer: muon | adamw",
        "B − A = +0.2500, 95% interval +0.2273 to +0.2727, p = 6.8e-06 (Welch's t-test)",
        "They differ beyond their seeds: A is better.",
    ]


def test_a_page_holds_the_runs_that_were_compared_or_all_of_one_set(results: Path) -> None:
    def written(*words: str) -> tuple[str, str]:
        done = CliRunner().invoke(main.app, ["compare", *words, "--html", "report.html", "--results", str(results)])
        assert done.exit_code == 0, done.output
        return done.output, Path("report.html").read_text(encoding="utf-8")

    printed, page = written("optimizer=muon n_layer=3", "optimizer=adamw n_layer=3")
    assert "They differ beyond their seeds: A is better." in printed
    assert "They differ beyond their seeds: A is better." in page
    assert [name in page for name in ("muon-3", "adamw-3", "deep")] == [True, True, False]
    printed, page = written("optimizer=adamw")
    assert [name in page for name in ("muon-3", "adamw-3", "deep")] == [False, True, True]
    printed, page = written("muon-1", "deep")
    assert "No verdict: muon-1 and deep differ in more than the seed and one setting" in page
    with pytest.raises(ValueError, match="No known run has optimizer=lion"):
        comparing.members("optimizer=lion", results)


@pytest.mark.slow
def test_dvc_experiments_revisions_and_folders_are_found_by_what_dvc_wrote(project: Project, monkeypatch: Any) -> None:
    monkeypatch.chdir(project.folder)
    here = runs.of_folder(Path())
    assert runs.of_revision("HEAD").identity == here.identity
    assert here.settings["code"] == runs.code_here()
    assert here.settings["train.steps"] == here.steps == 20
    project.dvc("exp", "run", "--name", "seed-2", "-S", "seed=2", "evaluate")
    project.dvc("exp", "run", "--name", "fast-2", "-S", "seed=2", "-S", "train.learning_rate=2e-2", "evaluate")
    project.run("git", "checkout", "-q", "-f", "main")
    (fast,) = runs.of_experiments("fast-*")
    assert (fast.name, fast.seed, fast.settings["train.learning_rate"]) == ("fast-2", 2, 0.02)
    assert comparing.differing([here, fast]) == {"train.learning_rate": [0.01, 0.02]}
    assert {one.name for one in named("HEAD", [])} == {"HEAD", "seed-2"}  # fast-2 differs in more than the seed
    (found,) = compare("HEAD", "fast-2", None)
    assert (found.a.bits[0], len(found.b.runs)) == (here.bits_per_byte, 1)
    lock = Path("dvc.lock").read_text(encoding="utf-8")
    Path("dvc.lock").write_text(f"{lock}  mine:\n    cmd: echo hi\n", encoding="utf-8")  # a stage without outputs
    assert runs.of_folder(Path()) == here


def test_metrics_that_are_not_those_of_the_lock_are_refused(project: Project, monkeypatch: Any) -> None:
    monkeypatch.chdir(project.folder)
    file = Path("data/evaluation/metrics.json")
    file.write_text(file.read_text().replace('"loss": ', '"loss": 1'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"data/evaluation/metrics\.json does not match dvc\.lock"):
        runs.of_folder(Path())


@pytest.mark.slow
def test_a_run_whose_evaluation_is_of_another_model_is_refused(project: Project, monkeypatch: Any) -> None:
    monkeypatch.chdir(project.folder)
    project.dvc("repro", "-f", "-s", "train")
    assert runs.of_folder(Path()).steps == 20  # the same bytes
    project.set("train", learning_rate=0.02)
    assert project.dvc("repro", "train") == ["train"]
    with pytest.raises(ValueError, match="`evaluate` is out of date with its inputs"):
        runs.of_folder(Path())


@pytest.mark.slow
def test_an_experiment_that_holds_no_run_stands_in_nobodys_way(project: Project, monkeypatch: Any) -> None:
    monkeypatch.chdir(project.folder)
    project.dvc("exp", "run", "--name", "whole", "-S", "sample.temperature=0.4")
    project.run("git", "checkout", "-q", "-f", "main")
    lock = Path("dvc.lock").read_text(encoding="utf-8")
    Path("dvc.lock").write_text(lock.replace("data/model", "data/x"), encoding="utf-8")
    project.run("git", "commit", "-q", "-a", "-m", "older")
    commit = project.run("git", "rev-parse", "HEAD").strip()
    (ref,) = (ref for name, ref in runs.experiment_refs("whole"))
    project.run("git", "update-ref", ref.replace("whole", "older"), commit)
    project.run("git", "reset", "-q", "--hard", "HEAD^")
    assert [one.name for one in runs.of_experiments()] == ["whole"]
    with pytest.raises(ValueError, match="older has no complete run"):
        runs.of_experiments("older")


def test_the_table_of_experiments_shows_what_differs_in_a_hundred_columns() -> None:
    text = """Experiment,rev,State,bits_per_byte,baselines.xz,seed,params.yaml:train.betas,params.yaml:model.n_layer,d
,workspace,,1.99115,2,1,"[0.9, 0.95]",3,abc
,main,,1.99115,2,1,"[0.9, 0.95]",3,abc
deep,4958204,Success,0.78305,3,1,"[0.9, 0.95]",6,abd
waits,e466788,Queued,!,,1,"[0.8, 0.9]",3,abc
"""
    assert table.lines(text) == [
        "experiment  State    bits_per_byte  train.betas  model.n_layer",
        "workspace   -        1.991          [0.9, 0.95]  3",
        "main        -        1.991          [0.9, 0.95]  3",
        "deep        Success  0.783          [0.9, 0.95]  6",
        "waits       Queued   !              [0.8, 0.9]   3",
    ]


def test_the_table_of_two_pipelines_names_the_one_of_a_folder() -> None:
    score, seed = "data/evaluation/metrics.json:bits_per_byte", "params.yaml:seed"
    text = f"""Experiment,rev,{score},chat/{score},{seed},chat/{seed}
,workspace,2,1.25,1,1
two,4958204,2,1.5,1,2
"""
    assert table.lines(text) == [
        "experiment  bits_per_byte  chat/bits_per_byte  chat/params.yaml:seed",
        "workspace   2.000          1.250               1",
        "two         2.000          1.500               2",
    ]


def test_a_cell_of_the_table_may_hold_any_line_end() -> None:
    text = 'Experiment,rev,params.yaml:download.path\n,workspace,a\u2028b\x85c\na,1234567,"one\ntwo"\n'
    assert table.lines(text) == [
        "experiment  download.path",
        "workspace   a\u2028b\x85c",
        "a           one\\ntwo",
    ]
