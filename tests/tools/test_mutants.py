"""The maker of mutants changes what it says and nothing else; the runner tells the killed from those that survive."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tools.mutants.mutator import mutants

TINY = '''"""A module."""
def clip(x: int, low: int = 0) -> int:
    """Never below low."""
    x = x.take(1, axis=1)
    if x < low:
        raise ValueError(x)
    return x
'''
CLIP = """def clip(x, low=0):
    x = +x
    return max(x, low)
"""


def test_the_mutants_of_a_function_are_these() -> None:
    assert [f"{one.kind}: {one.change}" for one in mutants(TINY)] == [
        "constant: 0 → 1",
        "statement: x = x.take(1, axis=1) → pass",
        "argument: x = x.take(1, axis=1) → x = x.take(1)",
        "call: x = x.take(1, axis=1) → x = x",
        "constant: x = x.take(1, axis=1) → x = x.take(2, axis=1)",
        "constant: x = x.take(1, axis=1) → x = x.take(1, axis=2)",
        "statement: if x < low: raise ValueError(x) → pass",
        "comparison: if x < low: raise ValueError(x) → if x <= low: raise ValueError(x)",
        "comparison: if x < low: raise ValueError(x) → if x >= low: raise ValueError(x)",
        "statement: if x < low: raise ValueError(x) → if x < low: pass",
        "statement: return x → pass",
    ]


@pytest.mark.parametrize("source", [TINY, CLIP])
def test_every_mutant_is_another_program_and_has_a_name_of_its_own(source: str) -> None:
    made = mutants(source)
    programs = {ast.dump(ast.parse(text)) for text in [source, *(one.source for one in made)]}
    assert (len(programs), len({one.name for one in made})) == (len(made) + 1, len(made))


def test_what_is_killed_survives_or_is_explained_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tools/mutants").mkdir(parents=True)
    (tmp_path / "tinygpt").mkdir()
    (tmp_path / "tinygpt/__init__.py").touch()
    (tmp_path / "tinygpt/clip.py").write_text(CLIP, encoding="utf-8")
    test = "from tinygpt.clip import clip\ndef test_clip():\n    assert (clip(-3), clip(4)) == (0, 4)\n"
    (tmp_path / "tests/test_clip.py").write_text(test, encoding="utf-8")
    reasons = {"tinygpt/clip.py": [{"reason": "nothing changes", "mutants": ["clip: x = +x → x = x"]}]}
    (tmp_path / "tools/mutants/reasons.yaml").write_text(yaml.safe_dump(reasons), encoding="utf-8")
    command = [sys.executable, "-m", "tools.mutants", "--root", str(tmp_path), "--tests", "tests/test_clip.py", "--"]
    done = subprocess.run([*command, "tinygpt/clip.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.splitlines()[:2]) == [
        "tinygpt/clip.py:2 operator: clip: x = +x → x = x   # nothing changes",
        "tinygpt/clip.py:2 statement: clip: x = +x → pass   # unexplained",
    ]
    assert done.stdout.splitlines()[-1].split("\t") == ["tinygpt/clip.py", "5", "3", "0", "2", "60.0%", "1"]
    assert "Some survived unexplained" in done.stderr
    assert (tmp_path / "tinygpt/clip.py").read_text(encoding="utf-8") == CLIP
