"""A logger changes no result, whatever becomes of it, and sends nothing unasked."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CPU, gpt_config, params
from tests.project import Project
from tinygpt.errors import ConfigError
from tinygpt.training import loggers
from tinygpt.training.loop import train
from tinygpt.training.state import State, initial_state

INSTALLED = importlib.util.find_spec("wandb") is not None
needs_wandb = pytest.mark.skipif(not INSTALLED, reason="wandb is not installed")


class Recorder:
    """Stands for the wandb package: notes what it is told, and fails at the call that it is to fail at."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            self.calls.append((name, words, named))
            if name == self.fails:
                raise RuntimeError(f"{name} has no network")
            return False if name == "login" else self

        return call


def trained(data: dict[str, Any], name: str | None) -> tuple[State, list[str]]:
    """A small run, and what was warned of in it."""
    settings, said = params(train__steps=4, train__eval_every=2).train, list[str]()
    state = initial_state(gpt_config(), settings, seed=1, device=CPU, precision="fp32")
    with loggers.opened(name, "f" * 16, {"seed": 1}, said.append) as logger:
        for _ in train(state, settings, data, seed=1, precision="fp32"):
            logger.note(state)
    return state, said


@pytest.mark.parametrize("fails", ["", "login", "init", "define_metric", "log", "finish"])
def test_training_goes_on_whatever_the_logger_does(
    data: dict[str, Any], fails: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Recorder(fails)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    plain, _ = trained(data, None)
    state, said = trained(data, "wandb")
    assert state.train_rows == plain.train_rows
    assert state.validation_rows == plain.validation_rows
    assert all((state.best[name] == plain.best[name]).all() for name in plain.best)
    warnings = [line for line in said if "failed" in line]
    assert len(warnings) == bool(fails)
    if fails:
        assert f"RuntimeError: {fails} has no network" in warnings[0]
        assert [name for name, _, _ in wandb.calls].count(fails) == 1  # and is not tried again


def test_every_row_of_the_curves_is_noted(data: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    state, _ = trained(data, "wandb")
    logged = [words[0] for name, words, _ in wandb.calls if name == "log"]
    assert [row["step"] for row in logged] == [0, 1, 2, 3, 4]
    assert [row["train/loss"] for row in logged[1:]] == [row["loss"] for row in state.train_rows]
    assert [row["validation/loss"] for row in logged if "validation/loss" in row] == [
        row["loss"] for row in state.validation_rows
    ]
    assert "health/update_ratio" in logged[1]
    assert [named for name, _, named in wandb.calls if name == "finish"] == [{"exit_code": 0}]


@pytest.mark.parametrize(("mode", "expected"), [("", "offline"), ("online", None), ("disabled", None)])
def test_nothing_is_sent_where_nobody_has_logged_in(
    mode: str, expected: str | None, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, said = Recorder(), list[str]()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_MODE", mode)
    with loggers.opened("wandb", "f" * 16, {}, said.append):
        pass
    (begun,) = (named for name, _, named in wandb.calls if name == "init")
    assert begun["mode"] == expected
    assert (begun["id"], begun["resume"], begun["dir"]) == ("f" * 16, "allow", Path(".tinygpt"))
    assert [named for name, _, named in wandb.calls if name == "login"] == ([] if mode else [{"prompt": False}])
    assert len(said) == (not mode)


def test_one_that_is_not_installed_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    loggers.check(None)
    with pytest.raises(ValueError, match=r"runtime.logger is wandb, which is not installed. Run `pip install"):
        loggers.check("wandb")


def test_params_know_no_other_logger() -> None:
    assert params(runtime__logger="wandb").runtime.logger == "wandb"
    with pytest.raises(ConfigError, match=r"runtime.logger is 'tensorboard'; it must be 'wandb'"):
        params(runtime__logger="tensorboard")


@needs_wandb
def test_with_wandb_offline_the_model_is_the_same_and_a_resumed_run_goes_on_in_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(project.folder))  # nobody has logged in there
    before = project.results()
    project.set("runtime", logger="wandb")
    printed = project.run(sys.executable, "-m", "stages.train")
    assert "nobody is logged in to wandb, so it writes to .tinygpt/wandb" in printed
    assert "failed" not in printed
    assert project.results() == before
    assert project.dvc("repro") == []  # a logger is no reason to run again
    (first,) = logged(project)
    stopped = [sys.executable, "-c", STOP_AFTER_SEVEN]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC", "GIT_"))}
    assert subprocess.run(stopped, cwd=project.folder, env=env, check=False).returncode == 143
    assert "going on after step 7" in project.run(sys.executable, "-m", "stages.train")
    assert project.results() == before
    assert {name.split("-")[-1] for name in logged(project)} == {first.split("-")[-1]}
    assert len(logged(project)) == 3


STOP_AFTER_SEVEN = """
import os, signal, runpy, sys
from tinygpt.training import loggers
noted = loggers.Wandb.note
def note(self, state):
    noted(self, state)
    if state.step == 7:
        os.kill(os.getpid(), signal.SIGTERM)
loggers.Wandb.note = note
sys.argv = ["train"]
runpy.run_module("stages.train", run_name="__main__")
"""


def logged(project: Project) -> list[str]:
    """The runs that wandb has written in the project: offline-run-<time>-<id>."""
    return sorted(path.name for path in (project.folder / ".tinygpt/wandb").glob("offline-run-*"))
