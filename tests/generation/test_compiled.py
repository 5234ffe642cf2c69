"""Machine code is kept by its content: copies, other processes and later ones find it, whatever goes wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOUBLE = """
import numba, sys
from tinygpt.generation.cpu import compiled

calls = []

def make(kind):
    calls.append(kind)

    @numba.njit
    def double(address):
        numbers = numba.carray(pointer(address), (2,), numba.int64)
        numbers[0] = 2 * numbers[1]

    return double

from tinygpt.generation.cpu.vectors import pointer
import numpy as np
numbers = np.array([0, 21])
compiled.load(sys.argv[1], make, 1)(numbers.ctypes.data)
print(numbers[0], len(calls), file=sys.stdout)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(home: Path, kind: str = "any", code: Path = ROOT, **changes: str) -> list[str]:
    """What DOUBLE prints: the result, and how often it was compiled."""
    env = os.environ | {"PYTHONPATH": str(code)} | changes
    done = subprocess.run(
        [sys.executable, "-c", DOUBLE, kind], cwd=home, env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.slow
def test_a_later_process_and_a_copy_of_the_code_find_what_was_compiled(home: Path) -> None:
    assert run(home) == ["42", "1"]
    assert run(home) == ["42", "0"]
    assert run(home, "another") == ["42", "1"]
    copy = Path(shutil.copytree(ROOT / "tinygpt", home / "two/tinygpt")).parent
    os.utime(copy / "tinygpt/generation/cpu/functions.py", (0, 0))
    assert run(home, code=copy) == ["42", "0"]
    with (copy / "tinygpt/generation/cpu/functions.py").open("a") as file:
        file.write("# a change\n")
    assert run(home, code=copy) == ["42", "1"]
    assert run(home) == ["42", "0"]  # that of the old content is still there


def test_each_processor_has_a_file_of_its_own(home: Path) -> None:
    script = (
        "import sys\nfrom tinygpt.generation.cpu import compiled\nbefore = compiled.cache_file('fp32')\n"
        "compiled.processor = lambda: ('another', '')\nprint(before != compiled.cache_file('fp32'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.slow
def test_what_is_damaged_is_compiled_anew(home: Path) -> None:
    run(home)
    (file,) = (home / "cache").rglob("*.o")
    for size in (0, 10, 32, 500):
        file.write_bytes(file.read_bytes()[:size])
        assert run(home) == ["42", "1"]
    assert run(home) == ["42", "0"]


def test_where_nothing_can_be_written_every_process_compiles_and_none_fails(home: Path) -> None:
    (home / "cache").write_text("a file is in its way")
    assert run(home) == run(home) == ["42", "1"]


@pytest.mark.slow
def test_several_processes_may_compile_at_once(home: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", DOUBLE, "any"], cwd=home, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[0].split()[0] for process in running] == ["42"] * 4
    assert run(home) == ["42", "0"]


def test_a_function_that_would_need_numba_to_run_is_refused(home: Path) -> None:
    script = (
        "import numba, numpy\nfrom tinygpt.generation.cpu import compiled\n"
        "def make(kind):\n    return numba.njit(lambda n: print(n))\n"
        "try:\n    compiled.load('any', make, 1)\nexcept RuntimeError as problem:\n    print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=home, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "which only numba has." in done.stdout
    assert not list((home / "cache").rglob("*.o"))


@pytest.mark.slow
def test_numba_is_not_loaded_where_code_is_kept(home: Path) -> None:
    """Loading it takes longer than writing a text."""
    script = (
        "import sys\nfrom tests.conftest import gpt\nfrom tinygpt.generation.cpu.decoder import decoder_of\n"
        "print(decoder_of(gpt(), 1).logits([[1]]).shape, 'numba' in sys.modules)"
    )
    words = [sys.executable, "-c", script]
    for loaded in (True, False):
        done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
        assert done.stdout == f"torch.Size([1, 61]) {loaded}\n"
