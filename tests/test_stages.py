"""dvc.yaml tells the truth: deps are the modules that a stage imports, outputs lie where the code puts them."""

import ast
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from stages import interruptible
from stages.train import duration, report
from tests.conftest import ROOT
from tinygpt import config
from tinygpt.console import thousands
from tinygpt.files.paths import Paths

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
NO_DEPENDENCY = "tinygpt/config.py"  # types and checks only; it can change no result


def declared(stage: str) -> set[str]:
    return {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}


def as_file(module: str) -> str | None:
    """`tinygpt.model.gpt` → `tinygpt/model/gpt.py`, where that is ours."""
    path = Path(*module.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if (ROOT / file).is_file()]
    return found[0].as_posix() if found else None


def imported(file: str) -> set[str]:
    """Our files that a file imports anywhere in it, inside functions too; not those for type checkers alone."""
    names: set[str] = set()
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    never = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {inner for node in never for statement in node.body for inner in ast.walk(statement)}
    for node in (node for node in ast.walk(tree) if node not in skipped):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    packages = {name.rpartition(".")[0] for name in names}
    return {file for name in names | packages if name and (file := as_file(name) or "")}


def closure(file: str) -> set[str]:
    found, waiting = {file}, [file]
    while waiting:
        new = imported(waiting.pop()) - found - {NO_DEPENDENCY}
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_the_modules_that_the_stage_imports(stage: str) -> None:
    assert declared(stage) == closure(f"stages/{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_loaded_that_deps_do_not_name(stage: str) -> None:
    code = f"import stages.{stage}, sys, json; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {
        file for name in json.loads(run.stdout) if name.startswith(("tinygpt", "stages")) and (file := as_file(name))
    }
    assert loaded - {NO_DEPENDENCY} == declared(stage)


def test_each_stage_is_a_script_of_its_name() -> None:
    assert [stage["cmd"] for stage in STAGES.values()] == [f"python -m stages.{name}" for name in STAGES]
    assert list(STAGES) == ["download", "tokenize", "train", "evaluate", "sample"]


def test_outputs_lie_where_the_code_puts_them() -> None:
    paths = Paths()
    outs = {out for stage in STAGES.values() for out in stage["outs"]}
    metrics = {path for stage in STAGES.values() for metric in stage.get("metrics", []) for path in metric}
    assert outs == {
        *map(str, (paths.corpus, paths.tokenizer, paths.tokens, paths.model, paths.samples)),
        *(str(paths.training / name) for name in ("train.tsv", "validation.tsv", "health.tsv", "last.safetensors")),
        *(str(paths.evaluation / name) for name in ("figures", "by_position.tsv", "by_compute.tsv")),
    }
    assert metrics == {str(folder / "metrics.json") for folder in (paths.training, paths.evaluation)}


def test_params_that_change_no_result_are_tracked_by_no_stage() -> None:
    tracked = {name.split(".")[0] for stage in STAGES.values() for name in stage["params"]}
    assert tracked == set(config.Params.model_fields) - {"runtime"}


def test_git_ignores_what_dvc_keeps() -> None:
    outs = [out for stage in STAGES.values() for out in stage["outs"]]
    run = subprocess.run(
        ["git", "check-ignore", "--no-index", *outs], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert set(run.stdout.split()) == set(outs)


def test_data_flows_one_way() -> None:
    """The package's files can be put in an order in which each imports only files before it."""
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "tinygpt").rglob("*.py")]
    needs = {file: imported(file) for file in files}
    placed: set[str] = set()
    while ready := {file for file, needed in needs.items() if file not in placed and needed - {file} <= placed}:
        placed |= ready
    assert set(needs) - placed == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_refuses_wrong_parameters_before_any_work(stage: str, tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("  steps: ", "  stepps: ")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", f"stages.{stage}", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "train.stepps is not a parameter; did you mean steps?" in run.stderr
    assert "Traceback" not in run.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.72, "0.72"), (999.4, "999"), (999.6, "1k"), (1024, "1.02k"), (999_600, "1M"), (5.3e6, "5.3M"), (2e15, "2P")],
)
def test_numbers_are_told_in_three_digits_and_a_letter(number: float, text: str) -> None:
    assert thousands(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "1 second"), (1.6, "2 seconds"), (89.4, "89 seconds"), (90, "1.5 minutes")]
)
def test_a_forecast_is_told_in_seconds_up_to_a_minute_and_a_half(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("steps", "left"), [(100, "0:00"), (41, "0:59"), (40.4, "1:00"), (40, "1:00"), (0, "1:40")])
def test_time_left_never_shows_sixty_seconds(steps: float, left: str) -> None:
    params = config.load(ROOT / "params.yaml")
    settings = params.train.model_copy(update={"steps": 100})
    state = SimpleNamespace(
        step=steps,
        train_rows=[{"loss": 1.0}],
        validation_rows=[{"loss": 1.0}],
        model=SimpleNamespace(config=SimpleNamespace(context_length=128)),
    )
    assert report(cast(Any, state), settings, speed=1.0).endswith(f"{left} left")


def test_a_terminal_that_closes_asks_for_a_stop_and_does_not_kill() -> None:
    with interruptible() as interrupted:
        signal.raise_signal(signal.SIGHUP)  # by the shell
        signal.raise_signal(signal.SIGHUP)  # by the system
        assert interrupted() == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interrupted:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)
