"""`make` works in a folder of any name, leaves a PyTorch that is there, and says at once where git is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON = """#!/bin/sh
echo "$0|$*" >> log
case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile and what it installs from, under an odd name, with a Python that only notes what it is told."""
    folder = tmp_path / "a b'\"(é)$HOME$(x)%#;"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "python").write_text(PYTHON, encoding="utf-8")
    (folder / "python").chmod(0o755)
    return folder


def make(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "PYTHON=./python", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_make_works_in_a_folder_of_any_name(folder: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    done = make(folder, "all", "lint", "minute", "ablations")
    assert (done.returncode, done.stderr) == (0, "")
    ran = [line.split("|-m ")[1].split()[0] for line in (folder / "log").read_text().splitlines() if "|-m " in line]
    assert ran[:5] == ["venv", "pip", "dvc", "tinygpt", "dvc"]
    assert ran[5:] == ["pip", "ruff", "ruff", "mypy", "tinygpt", "dvc", "benchmark.ablations"]


def test_tests_run_the_programs_beside_their_python_whether_or_not_its_environment_is_active() -> None:
    for program in ("dvc", "python", "tinygpt", "torchrun"):
        assert Path(shutil.which(program) or "").parent == Path(sys.executable).parent


def test_without_a_repository_make_says_so_before_it_installs(folder: Path) -> None:
    done = make(folder)
    assert done.returncode == 2
    assert "not a git repository" in done.stderr
    assert "git init && git add -A && git commit -m start" in done.stdout
    assert not (folder / "log").exists()
