"""The commands that pages recommend are sound: `tinygpt check` accepts what they set."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tinygpt.cli import presets

PAGES = ("docs/datasets.md", "README.md", "docs/lessons/01_text.md")


def recipes() -> list[str]:
    """The `dvc exp run` lines of the pages that read from the hub and leave nothing open."""
    lines = [line.strip() for page in PAGES for line in (ROOT / page).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.startswith("dvc exp run") and "…" not in line and re.search("hub|gpu", line)]


def settings(command: str) -> presets.Size:
    """What a command sets, section.key → value; a named size is written out."""
    named = presets.load(ROOT / "sizes.yaml")
    line = re.sub(r"\$\(tinygpt size ([\w-]+)\)", lambda match: shlex.join(presets.options(named[match[1]])), command)
    words = shlex.split(line, comments=True)
    pairs = [word.split("=", 1) for option, word in itertools.pairwise(words) if option == "-S"]
    return {key: yaml.safe_load(value) for key, value in pairs}


def test_there_are_recipes() -> None:
    assert len([line for line in recipes() if "size" in line]) >= 2


@pytest.mark.parametrize("command", recipes())
def test_a_recipe_passes_check(command: str, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key, value in settings(command).items():
        section, name = key.split(".")
        assert name in values[section]
        values[section][name] = value
    assert values["download"]["source"] == "hub"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tinygpt", "check", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
