"""User-facing error messages: `explain(problem)` returns what went wrong and the next step."""

import difflib
import errno
import os
import re
import reprlib
from pathlib import Path
from typing import Any, get_args

GONE = {  # keys of earlier versions → what to do instead
    "train.implementation": "remove the line. `dvc repro scratch/dvc.yaml` trains the reference implementation.",
}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MADE_BY = {"corpus": "download", "tokenizer": "tokenize", "tokens": "tokenize", "model": "train", "training": "train"}


def explain(problem: Exception) -> str | None:
    """What went wrong, with the next step; None for an unexpected error.

    None for every error if $TINYGPT_TRACEBACK is set, so that developers see the traceback.
    """
    return None if os.environ.get("TINYGPT_TRACEBACK") else _message(problem)


def _message(problem: Exception) -> str | None:
    if isinstance(problem, OSError) and problem.errno in NO_SPACE:
        return f"The disk is full ({problem}). Finished results are intact; free some space and run this again."
    if out_of_memory(problem):
        return (
            "There is not enough memory. For a stage, lower train.batch_size (or evaluate.batch_size); raising "
            "train.accumulation by the same factor keeps the result. Or use a smaller model, or a smaller batch."
        )
    if isinstance(problem, OSError) and problem.errno and problem.filename is not None:
        return _of_path(problem, Path(os.fsdecode(problem.filename)))
    if isinstance(problem, ValueError) and "embedded null" in str(problem):  # Python's message
        return "A path has a NUL character in it, which file names cannot have. Write another path."
    if isinstance(problem, UnicodeDecodeError | UnicodeEncodeError):
        decoding = f"The input is not UTF-8 text (byte {problem.start}). Save it as UTF-8"
        encoding = "A text has a lone surrogate (half a character). Remove it"
        return f"{decoding if isinstance(problem, UnicodeDecodeError) else encoding}, and run this again."
    return None if isinstance(problem, RuntimeError) else str(problem)


def out_of_memory(problem: Exception) -> bool:
    """Whether Python, a PyTorch allocator or cuBLAS ran out of memory."""
    match = re.search("out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", str(problem))
    return isinstance(problem, MemoryError) or (isinstance(problem, RuntimeError) and match is not None)


def _of_path(problem: OSError, path: Path) -> str:
    """The message for an operating system's error on a path."""
    if isinstance(problem, FileExistsError | NotADirectoryError):
        file = next((place for place in (path, *path.parents) if place.is_file()), path)
        return f"{file} is a file, and a folder is needed there. Write another path, or move the file away."
    if isinstance(problem, FileNotFoundError):
        if path.name == "baselines.json" and path.with_name("yardsticks.json").is_file():
            return f"{path.parent} was made by an earlier version of TinyGPT. `dvc repro` remakes it."
        data = (place.name for place in (path, *path.parents) if place.parent.name == "data")
        stage = next((MADE_BY[name] for name in data if name in MADE_BY), None)
        next_step = f"`dvc repro {stage}` makes it" if stage else "Check the spelling and the working directory"
        return f"There is no {path}. {next_step}."
    if isinstance(problem, IsADirectoryError):
        return f"{path} is a folder, and a file is needed there. Write another path."
    if isinstance(problem, PermissionError) or problem.errno == errno.EROFS:
        return f"{path} cannot be accessed ({problem.strerror}). Change its permissions, or write another path."
    return str(problem)


class ConfigError(ValueError):
    """An invalid parameter file; `problems` has one sentence per problem."""

    def __init__(self, file: Path | str, problems: list[str]) -> None:
        self.problems = problems
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{file} has {count}:\n" + "\n".join(f"  - {problem}" for problem in problems))


def of_parameter(problem: dict[str, Any], params: Any) -> str:
    """One of pydantic's errors on the model `params` as a sentence: the key, the value, what is allowed."""
    key = ".".join(str(part) for part in problem["loc"] if part not in ("int", "float", "str"))
    found = problem.get("input")
    match problem["type"]:
        case "missing":
            return f"{key} is missing. `git diff params.yaml` shows what was removed."
        case "extra_forbidden" if key in GONE:
            return f"{key} is no longer a parameter: {GONE[key]}"
        case "extra_forbidden":
            names = _allowed_names(problem["loc"], params)
            near = difflib.get_close_matches(str(problem["loc"][-1]), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(names)}."
            return f"{key} is not a parameter; {hint}"
        case "int_type" | "float_type" if isinstance(found, str) and _number(found) is not None:
            return f"{key} is the text {found!r}, not a number; write {_number(found)} without quotes."
    allowed = re.sub(r"^(Input|List|String) should ", "must ", problem["msg"])
    if problem["type"] == "model_type":
        allowed = "must be a section of keys and values"
    return f"{key} is {_shown(found)}; it {allowed}."


def _shown(value: object) -> str:
    text = reprlib.repr(value) if isinstance(value, list | dict) else "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _number(text: str) -> float | int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _allowed_names(location: tuple[str | int, ...], section: Any) -> list[str]:
    """The keys allowed in the section that contains an unknown key."""
    for part in location[:-1]:
        field = section.model_fields[str(part)].annotation
        section = next(kind for kind in (field, *get_args(field)) if isinstance(kind, type))
    return [field.alias or name for name, field in section.model_fields.items()]
