"""The exercises of the lessons: `tinygpt exercise 3` copies three stubs, `tinygpt exercise 3 --check` tests them.

tinygpt/exercises/lesson_03 contains the stubs of lesson 3, one function per file, and tests.py with one test per stub,
in order; function, file and test have the same name. `copy` copies the stubs for a learner and never overwrites;
`check` runs the tests and describes the first error of each. The solutions are with the project's own tests.
"""

import ast
import importlib
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

STUBS = Path(__file__).parent


def lessons() -> list[int]:
    """The lessons that have exercises."""
    return sorted(int(folder.name.removeprefix("lesson_")) for folder in STUBS.glob("lesson_*"))


def names(lesson: int) -> list[str]:
    """The exercises of a lesson, in order. Raises ValueError if there is no such lesson."""
    if lesson not in lessons():
        raise ValueError(f"There is no lesson {lesson}; there are {lessons()[0]} to {lessons()[-1]}.")
    tests = ast.parse((STUBS / f"lesson_{lesson:02}/tests.py").read_text(encoding="utf-8"))
    return [node.name for node in tests.body if isinstance(node, ast.FunctionDef)]


def title(lesson: int, name: str) -> str:
    """The task of an exercise in one line: the first line of its stub."""
    text = ast.get_docstring(ast.parse(stub(lesson, name).read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0]


def stub(lesson: int, name: str) -> Path:
    """The stub of an exercise."""
    return STUBS / f"lesson_{lesson:02}" / f"{name}.py"


def written(lesson: int, name: str, folder: Path) -> Path:
    """The learner's file of an exercise."""
    return folder / f"{lesson:02}" / f"{name}.py"


def copy(lesson: int, folder: Path) -> Iterator[tuple[Path, bool]]:
    """Copy the stubs of a lesson into `folder`/03 without overwriting; each file, and whether it is new."""
    for name in names(lesson):
        file = written(lesson, name, folder)
        new = not file.exists()
        if new:
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(stub(lesson, name), file)
        yield file, new


def check(lesson: int, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Run the tests of a lesson on the files in `folder`/03: each name, and a sentence on what is wrong, or None.

    Raises FileNotFoundError if the lesson was not copied.
    """
    if not (folder / f"{lesson:02}").is_dir():
        names(lesson)  # raises ValueError for an unknown lesson
        raise FileNotFoundError(f"There is no {folder}/{lesson:02}. Run `tinygpt exercise {lesson}` first.")
    tests = importlib.import_module(f"tinygpt.exercises.lesson_{lesson:02}.tests")
    for name in names(lesson):
        yield name, verdict(getattr(tests, name), written(lesson, name, folder))


def home(lesson: int, name: str) -> str:
    """The project's own implementation: the docstring of the exercise's test."""
    tests = importlib.import_module(f"tinygpt.exercises.lesson_{lesson:02}.tests")
    return str(getattr(tests, name).__doc__)


def verdict(test: Callable[[Callable[..., Any]], None], file: Path) -> str | None:
    """A sentence on what is wrong with the function in `file`, or None if the test passes."""
    arguments: tuple[Any, ...] = ()

    def recorded(*given: Any) -> Any:
        nonlocal arguments
        arguments = given
        return function(*given)

    if not file.is_file():
        return f"{file} is missing; `tinygpt exercise` copies it again"
    try:
        function = load(file)
        test(recorded)
    except NotImplementedError:
        return "not written yet"
    except SyntaxError as problem:
        return f"line {problem.lineno} is not Python: {problem.msg}"
    except AssertionError as problem:
        return str(problem) or f"the assert in line {line_of(problem, file)} does not hold"
    except (Exception, SystemExit) as problem:  # any exception of the learner's code
        line = line_of(problem, file)
        where = f"in line {line}" if line else "in the test, from the returned value"
        return f"{type(problem).__name__} {where}: {problem}{called_with(arguments)}"
    return None


def called_with(arguments: tuple[Any, ...]) -> str:
    """The arguments of the failed call, as the end of a sentence."""
    from tinygpt.exercises import shown  # imports PyTorch, which listing exercises does not need

    return f"; called with ({', '.join(map(shown, arguments))})" if arguments else ""


def load(file: Path) -> Callable[..., Any]:
    """The function in a file that has the file's name. Raises AssertionError if there is none."""
    module = ModuleType(file.stem)
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)  # the learner's own code
    function = getattr(module, file.stem, None)
    if not callable(function):
        raise AssertionError(f"{file} defines no function {file.stem}")
    return function


def line_of(problem: BaseException, file: Path) -> int | None:
    """The last line of `file` that an error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(file)]
    return lines[-1] if lines else None
