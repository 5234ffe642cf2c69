"""Where things lie, and how they are written: whole or not at all.

`Paths(folder)` names every file of a pipeline, once. `writing(path)` hands out a temporary file or folder beside
`path` and renames it when the block ends well, so that nobody ever reads half of anything; `seal` and `verify`
keep the SHA-256 sums of a folder, in the format of `sha256sum -c`. `explain` turns an error into a sentence.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SUMS = "SHA256SUMS"
MADE_BY = {"corpus": "download", "tokenizer": "tokenize", "tokens": "tokenize", "model": "train", "training": "train"}
POINTERS = {  # how files begin that stand for others → what wrote them, and what brings the others
    b"version https://git-lfs.github.com/spec/": ("git-lfs", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get ."),
}
LARGEST_JSON = 2**28  # bytes; a tokenizer of a million entries, the most that params.yaml allows, takes less than half


@dataclass(frozen=True)
class Paths:
    """The files of one pipeline: a folder with a dvc.yaml and a params.yaml."""

    folder: Path = Path()

    @property
    def params(self) -> Path:
        return self.folder / "params.yaml"

    @property
    def corpus(self) -> Path:
        return self.folder / "data/corpus"

    @property
    def yardsticks(self) -> Path:
        return self.corpus / "yardsticks.json"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "data/tokenizer"

    @property
    def tokens(self) -> Path:
        return self.folder / "data/tokens"

    @property
    def model(self) -> Path:
        return self.folder / "data/model"

    @property
    def training(self) -> Path:
        return self.folder / "data/training"

    @property
    def evaluation(self) -> Path:
        return self.folder / "data/evaluation"

    @property
    def samples(self) -> Path:
        return self.folder / "data/samples"

    def text(self, split: str) -> Path:
        return self.corpus / f"{split}.parquet"

    def ids(self, split: str) -> Path:
        return self.tokens / f"{split}.npy"


def home() -> Path:
    """The repository itself, also when DVC runs a stage in a temporary copy of it ($DVC_ROOT)."""
    return Path(os.environ.get("DVC_ROOT", "."))


def hidden(name: str) -> Path:
    """`.tinygpt/<name>` in the repository: downloads, runs in progress, the log. DVC and git leave it alone."""
    return home() / ".tinygpt" / name


def find_folder(name: str) -> Path | None:
    """A folder of that name: in the working directory, as DVC sees it, or else in the repository; None for neither."""
    return next((folder for folder in (Path(name), home() / name) if folder.is_dir()), None)


def is_ours(model: Path) -> bool:
    """Whether a model folder was written by TinyGPT, whole or not: another program leaves neither of these files."""
    return any((model / name).exists() for name in (SUMS, "lineage.json"))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which becomes `path` when the block ends without an error.

    The block makes a file or a folder there. It is flushed to the disk before it is renamed, and replaces what
    was at `path`; after an error it is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        middle = left.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if middle.isdecimal() and (int(middle) == os.getpid() or not psutil.pid_exists(int(middle))):
            _remove(left)  # by a process that was killed
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        for file in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
            _flush(file)
        if partial.is_dir() and (path.is_dir() or path.is_symlink()):  # a file in a folder's place: IsADirectoryError
            _remove(path)  # a folder, or a link to one, cannot be replaced in one move
        partial.replace(path)
        _flush(path.parent)
    finally:
        _remove(partial)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the order given, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; ValueError in a sentence where it is not."""
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} is damaged: it is larger than {LARGEST_JSON:,} bytes.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        check_fetched(path)
        raise ValueError(f"{path} is damaged: it is not JSON ({problem}).") from problem


def check_fetched(path: Path) -> None:
    """ValueError, in a sentence, for what git-lfs or git-annex leaves in place of a file that was not fetched."""
    with path.open("rb") as file:
        beginning = file.read(64)
    program, command = next((told for start, told in POINTERS.items() if beginning.startswith(start)), ("", ""))
    if program and path.parent == hidden("downloads"):
        raise ValueError(
            f"What download.url gave is a pointer of {program}, not the file itself. Set download.url to the address "
            "of the site's download button, and download.sha256 to null."
        )
    if program:
        raise ValueError(
            f"{path} is a pointer of {program}, not the file itself. Run `{command}` in its repository, which fetches "
            "what it stands for."
        )


def lines(text: str) -> list[str]:
    """The lines of a text, cut at newlines alone; str.splitlines() also cuts at U+2028 and other signs."""
    return text.removesuffix("\n").split("\n") if text else []


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write SHA256SUMS over every file in `folder`; `sha256sum -c SHA256SUMS` checks it anywhere."""
    names = sorted(file.name for file in folder.iterdir() if file.name != SUMS)
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def read_sums(folder: Path) -> dict[str, str]:
    """File name → SHA-256, as SHA256SUMS has them; ValueError where it holds anything else."""
    text = (folder / SUMS).read_bytes().decode("utf-8", errors="replace")
    if not re.fullmatch(r"([0-9a-f]{64}  [^/\n]+\n)*", text):
        raise ValueError(f"{folder} is damaged: its {SUMS} does not hold sums.")
    return {line[66:]: line[:64] for line in text.split("\n")[:-1]}


def verify(folder: Path) -> None:
    """Check `folder` against its SHA256SUMS; ValueError names the first file that differs, is missing or extra."""
    sums = read_sums(folder)
    present = {file.name for file in folder.iterdir() if file.name != SUMS}
    for name in sorted(present | sums.keys()):
        if name not in present:
            raise ValueError(f"{folder} is damaged: {name} is missing.")
        if name not in sums:
            raise ValueError(f"{folder} is damaged: {name} is not in its {SUMS}.")
        if not (folder / name).is_file() or sha256(folder / name) != sums[name]:
            if (folder / name).is_file():
                check_fetched(folder / name)
            raise ValueError(f"{folder} is damaged: {name} does not match its {SUMS}.")


def explain(problem: Exception) -> str | None:
    """What went wrong, with the next step where the system gave none; None for what nobody foresaw, and for all where
    $TINYGPT_TRACEBACK is set: then whoever mends the code sees where it went wrong.
    """
    return None if os.environ.get("TINYGPT_TRACEBACK") else _told(problem)


def _told(problem: Exception) -> str | None:
    """The sentence, or None for what nobody foresaw."""
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full ({problem}). What was finished before is intact; free some space and run this again."
    if out_of_memory(problem):
        return (
            "There is not enough memory. For a stage, set train.batch_size (or evaluate.batch_size) lower; "
            "train.accumulation, set higher by as much, keeps the result the same. Or take a smaller model, or less at "
            "once."
        )
    if isinstance(problem, OSError) and problem.errno and problem.filename is not None:
        return _of_path(problem, Path(os.fsdecode(problem.filename)))
    if isinstance(problem, ValueError) and "embedded null" in str(problem):  # so says Python of any path
        return "A path has a NUL character in it, which no file can be called. Write another path."
    if isinstance(problem, UnicodeDecodeError | UnicodeEncodeError):
        read = f"What was read is not UTF-8 text (byte {problem.start}). Save it as UTF-8"
        half = "A text holds half a character (a lone surrogate). Remove it"
        return f"{read if isinstance(problem, UnicodeDecodeError) else half}, and run this again."
    return None if isinstance(problem, RuntimeError) else str(problem)


def out_of_memory(problem: Exception) -> bool:
    """Whether there was not enough memory, as Python, PyTorch's allocators and cuBLAS say it."""
    says = re.search("out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", str(problem))
    return isinstance(problem, MemoryError) or (isinstance(problem, RuntimeError) and says is not None)


def _of_path(problem: OSError, path: Path) -> str:
    """What the system would not do with a path, in a sentence."""
    if isinstance(problem, FileExistsError | NotADirectoryError):
        file = next((place for place in (path, *path.parents) if place.is_file()), path)
        return f"{file} is a file, and a folder is needed there. Write another path, or move the file away."
    if isinstance(problem, FileNotFoundError):
        data = (place.name for place in (path, *path.parents) if place.parent.name == "data")
        stage = next((MADE_BY[name] for name in data if name in MADE_BY), None)
        next_step = f"`dvc repro {stage}` makes it" if stage else "See how it is spelt, and in which folder this runs"
        return f"There is no {path}. {next_step}."
    if isinstance(problem, IsADirectoryError):
        return f"{path} is a folder, and a file is needed there. Write another path."
    if isinstance(problem, PermissionError) or problem.errno == errno.EROFS:
        return f"{path} is closed to you ({problem.strerror}). Change whose it is, or write another path."
    return str(problem)


def _flush(path: Path) -> None:
    """Ask the system to put a file or folder on the disk itself, so that a rename never outruns its content."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as problem:  # some shares (CIFS, VirtualBox) flush no folders
            if problem.errno != errno.EINVAL or not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
