"""Compiled loops are kept by their content: copies, other processes and later ones find them, whatever goes wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with a compiled function, in a folder of its own; the cache is in another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "one/double.py"
    file.parent.mkdir()
    file.write_text(
        "from tinygpt.generation.compiled import entry\n\n@entry\ndef double(x):\n    return 2 * x\n\n"
        "print(double(21), sum(double.stats.cache_hits.values()), sum(double.stats.cache_misses.values()))\n"
    )
    return file


def run(file: Path) -> list[str]:
    """What the module prints: the result, how often compiled code was loaded, and how often made."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, file], cwd=file.parent, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_copy_elsewhere_finds_what_was_compiled_and_a_change_compiles_anew(source: Path, tmp_path: Path) -> None:
    assert run(source) == ["42", "0", "1"]
    assert run(source) == ["42", "1", "0"]
    copy = Path(shutil.copytree(source.parent, tmp_path / "two")) / "double.py"
    os.utime(copy, (0, 0))
    assert run(copy) == ["42", "1", "0"]
    copy.write_text(copy.read_text().replace("2 * x", "3 * x"))
    assert run(copy) == ["63", "0", "1"]
    assert run(source) == ["42", "1", "0"]  # that of the old content is still there


def test_damaged_files_are_compiled_anew(source: Path, tmp_path: Path) -> None:
    run(source)
    for pattern in ("*.nbi", "*.nbc"):
        (file,) = (tmp_path / "cache").rglob(pattern)
        file.write_bytes(file.read_bytes()[:100])
        assert run(source)[0] == "42"
        assert run(source) == ["42", "1", "0"]


def test_where_the_users_cache_cannot_be_written_the_repository_keeps_them(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in its way")
    assert run(source) == ["42", "0", "1"]
    assert list((source.parent / ".tinygpt/compiled").rglob("*.nbc"))
    assert run(source) == ["42", "1", "0"]
    shutil.rmtree(source.parent / ".tinygpt")
    (source.parent / ".tinygpt").write_text("and here, too")
    assert run(source) == run(source) == ["42", "0", "1"]  # kept nowhere, and no error


def test_several_processes_may_compile_at_once(source: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, source], cwd=source.parent, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[0].split()[0] for process in running] == ["42"] * 4
    assert run(source) == ["42", "1", "0"]
