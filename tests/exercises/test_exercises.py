"""Every exercise begins red and can be solved; what a learner wrote is never lost, and what is wrong is a sentence."""

import ast
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import ROOT
from tinygpt.cli import main
from tinygpt.exercises import runner, same

ALL = [(lesson, name) for lesson in runner.lessons() for name in runner.names(lesson)]
SOLUTIONS = ROOT / "tests/solutions"


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main.app, ["exercise", *words])
    if isinstance(result.exception, ValueError | OSError):
        return 1, str(result.exception)
    return result.exit_code, result.output


def solve(lesson: int, folder: Path) -> None:
    for name in runner.names(lesson):
        file = runner.written(lesson, name, folder)
        file.write_text((SOLUTIONS / f"lesson_{lesson:02}/{name}.py").read_text(encoding="utf-8"), encoding="utf-8")


def test_each_of_eleven_lessons_has_three() -> None:
    assert runner.lessons() == list(range(1, 12))
    assert [len(runner.names(lesson)) for lesson in runner.lessons()] == [3] * 11


@pytest.mark.parametrize(("lesson", "name"), ALL)
def test_every_exercise_begins_red_and_the_solution_is_green(lesson: int, name: str, tmp_path: Path) -> None:
    list(runner.copy(lesson, tmp_path))
    assert dict(runner.check(lesson, tmp_path))[name] == "not written yet"
    solve(lesson, tmp_path)
    assert dict(runner.check(lesson, tmp_path))[name] is None


@pytest.mark.parametrize(("lesson", "name"), ALL)
def test_a_stub_and_its_solution_are_one_function_of_that_name(lesson: int, name: str) -> None:
    for file in (runner.stub(lesson, name), SOLUTIONS / f"lesson_{lesson:02}/{name}.py"):
        assert runner.load(file).__name__ == name
    assert runner.title(lesson, name).endswith((".", "?"))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def merge(pieces, pair)\n    return pieces\n", "line 1 is not Python: expected ':'"),
        ("def marge(pieces, pair):\n    return pieces\n", "merge.py defines no function merge"),
        ("def merge(pieces, pair):\n    pass\n", "returned None; does the function end with `return`?"),
        ("def merge(pieces, pair):\n    return pieces\n", "should be [b'ab', b'ab', b'c']; yours is [b'a', b'b',"),
        ("def merge(pieces, pair):\n\n    return pieces[9]\n", "IndexError in line 3: list index out of range"),
        ("def merge(pieces, pair):\n    assert pieces == pair\n", "the assert in line 2 does not hold"),
        ("def merge(pieces, pair):\n    return open('no such file')\n", "FileNotFoundError in line 2: "),
        ("def merge(pieces, pair):\n    raise SystemExit('bye')\n", "SystemExit in line 2: bye"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, code: str, sentence: str) -> None:
    list(runner.copy(2, tmp_path))
    (tmp_path / "02/merge.py").write_text(code, encoding="utf-8")
    problem = dict(runner.check(2, tmp_path))["merge"]
    assert problem is not None
    assert sentence in problem
    assert "\n" not in problem


def test_no_check_rests_on_an_assert_which_python_o_leaves_out() -> None:
    files = [*(ROOT / "tinygpt/exercises").rglob("*.py"), ROOT / "tinygpt/exercises/runner.py"]
    assert len(files) > 40
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    assert [node for node in nodes if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("gives", ["None", "[]", "()", "a[0]"])
def test_what_gives_nothing_or_what_it_was_given_is_red(gives: str, tmp_path: Path) -> None:
    for lesson, name in ALL:
        list(runner.copy(lesson, tmp_path))
        file = runner.written(lesson, name, tmp_path)
        file.write_text(f"def {name}(*a):\n    return {gives}\n", encoding="utf-8")
    found = [each for lesson in runner.lessons() for each in runner.check(lesson, tmp_path)]
    assert [name for name, problem in found if problem is None] == []


def test_a_tensor_of_another_shape_is_said(tmp_path: Path) -> None:
    list(runner.copy(5, tmp_path))
    code = "def rms_norm(x, weight, eps):\n    return x[..., :1]\n"
    (tmp_path / "05/rms_norm.py").write_text(code, encoding="utf-8")
    problem = dict(runner.check(5, tmp_path))["rms_norm"]
    assert problem == "rms_norm([3, 4], [1, 1], 0) should be of shape (2,); yours is of shape (1,)"


def test_what_a_learner_wrote_is_never_overwritten(tmp_path: Path) -> None:
    assert run("2", "--folder", str(tmp_path))[0] == 0
    mine = tmp_path / "02/merge.py"
    mine.write_text("mine", encoding="utf-8")
    (tmp_path / "02/commonest_pair.py").unlink()
    code, printed = run("2", "--folder", str(tmp_path))
    assert code == 0
    assert f"{mine}: exists already; left unchanged" in printed
    assert mine.read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "02/commonest_pair.py").is_file()


def test_check_exits_with_0_once_all_is_solved(tmp_path: Path) -> None:
    run("9", "--folder", str(tmp_path))
    code, printed = run("9", "--check", "--folder", str(tmp_path))
    assert code == 1
    assert "red    grid: not written yet" in printed
    solve(9, tmp_path)
    code, printed = run("9", "--check", "--folder", str(tmp_path))
    assert code == 0
    assert "green  learning_rate: as `schedule` in tinygpt/training/optimizer.py" in printed


def test_all_exercises_are_listed() -> None:
    code, printed = run()
    assert code == 0
    assert len(printed.splitlines()) == 33
    assert (
        " 3  windows              Make the batch of a training step: windows of a long sequence of tokens." in printed
    )


def test_a_lesson_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert run("12") == (1, "There is no lesson 12; there are 1 to 11.")
    assert run("12", "--check", "--folder", str(tmp_path)) == (1, "There is no lesson 12; there are 1 to 11.")
    assert run("0") == (1, "There is no lesson 0; there are 1 to 11.")
    assert run("--check") == (1, "--check needs the number of a lesson: tinygpt exercise 4 --check.")
    code, printed = run("3", "--check", "--folder", str(tmp_path))
    assert (code, printed) == (1, f"There is no {tmp_path}/03. Run `tinygpt exercise 3` first.")


def test_git_ignores_where_a_learner_writes() -> None:
    assert "/exercises/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def examples(lesson: int, name: str) -> list[str]:
    """The lines `call → value` of a stub."""
    lines = runner.stub(lesson, name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith(f"    {name}(") and " → " in line]


@pytest.mark.parametrize(("lesson", "name"), ALL)
def test_the_examples_of_a_stub_are_true(lesson: int, name: str) -> None:
    solution = runner.load(SOLUTIONS / f"lesson_{lesson:02}/{name}.py")
    names = {name: solution, "tensor": torch.tensor, "inf": math.inf}
    for line in examples(lesson, name):
        call, _, value = line.partition(" → ")
        same(line, eval(call, dict(names)), eval(value, dict(names)))


def test_nearly_every_stub_has_an_example() -> None:
    without = [name for lesson, name in ALL if not examples(lesson, name)]
    assert without == ["training_bytes", "accumulate", "compressed_bits"]


@pytest.mark.parametrize(
    ("lesson", "call", "body", "sentence"),
    [
        (1, "hold_out(t, s)", "n = round(len(t) * s); return t[:-n], t[-n:]", "[0][1374:] should be ''; yours is 'l'"),
        (2, "commonest_pair(w)", "return max(p for pieces, _ in w for p in zip(pieces, pieces[1:]))", "yours is b'b'"),
        (2, "commonest_pair(w)", "return w[-1][0][0], w[-1][0][1]", "should be b'a'; yours is b'b'"),
        (3, "windows(t, s, n)", "return [t, t]", "should return 2 values; yours returned a list"),
        (4, "hide_future(s)", "return s.fill_(0)", "hide_future([[0, 1, 2, 3], [4, 5, 6, 7]"),
        (6, "adamw_step(w, g, m, s, *_)", "return w.mul_(0.5), m, s", "modified the input weight"),
        (
            7,
            "sample_from(p, n)",
            "for i, q in enumerate(p):\n        n -= q\n        if n < 0:\n            return i",
            "0.1, 0.0], 0.9999999999999999) returned None",
        ),
        (
            7,
            "probabilities(s, t)",
            "return s[9]",
            "list index out of range; called with ([2.0, -1.0, 0.5, 3.0, 2.5], 1)",
        ),
    ],
)
def test_what_a_typical_mistake_is_told(lesson: int, call: str, body: str, sentence: str, tmp_path: Path) -> None:
    name = call.partition("(")[0]
    list(runner.copy(lesson, tmp_path))
    runner.written(lesson, name, tmp_path).write_text(f"def {call}:\n    {body}\n", encoding="utf-8")
    problem = dict(runner.check(lesson, tmp_path))[name]
    assert problem is not None
    assert sentence in problem


def test_a_pair_counts_as_often_as_its_word_and_bits_are_no_bytes(tmp_path: Path) -> None:
    list(runner.copy(2, tmp_path))
    list(runner.copy(10, tmp_path))
    once = "from collections import Counter\n\ndef commonest_pair(words):\n"
    once += "    return Counter(p for w, _ in words for p in zip(w, w[1:])).most_common(1)[0][0]\n"
    in_bytes = "import bz2\n\ndef compressed_bits(train, rest):\n"
    in_bytes += "    return (len(bz2.compress(train + rest, 9)) - len(bz2.compress(train, 9))) / len(rest)\n"
    runner.written(2, "commonest_pair", tmp_path).write_text(once, encoding="utf-8")
    runner.written(10, "compressed_bits", tmp_path).write_text(in_bytes, encoding="utf-8")
    assert "should be b'x'; yours is b'a'" in str(dict(runner.check(2, tmp_path))["commonest_pair"])
    assert "should be 2.0943; yours is 0.2618" in str(dict(runner.check(10, tmp_path))["compressed_bits"])
