"""People's own files: `listed(Path("data/own"), "**/*")` says which are read, and why the others are not.

A link to a file is read, wherever that lies. What DVC could not follow, and so what would go stale or stop it later, is
refused in a sentence: a link to a folder, a link to nothing, a name that is not UTF-8, and a download.path that
overlaps with what a pipeline makes (`check_apart`). Left out: hidden folders.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

from tinygpt.config import read_yaml
from tinygpt.encodings import is_text
from tinygpt.records import READERS

KINDS = (".txt", ".md", *READERS)
STEPS = {  # what to do with files of other kinds
    ".json": "`jq -c '.[]' x.json > x.jsonl` makes records of an array",
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"), "unpack it"),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".epub", ".rtf"), "save it as plain text"),
    ".dvc": "`dvc pull` brings what it stands for",
}


def listed(root: Path, pattern: str) -> tuple[dict[str, Path], Counter[str]]:
    """(name → path of the files to read, sorted; why others are not read → how many of them) of a file or folder.

    Raises ValueError or FileNotFoundError, in a sentence, for what DVC could not follow.
    """
    if root.is_symlink() and not root.exists():
        _check_followed(root, root)
    if not root.exists():
        return {}, Counter()
    if not root.is_dir():
        why = _why_not(root, named=True)
        return ({}, Counter([why])) if why else ({root.name: root}, Counter())
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise _strange(pattern)
    try:
        matching = set(root.glob(pattern))
    except (ValueError, NotImplementedError):
        raise _strange(pattern) from None
    found, unread = {}, Counter[str]()
    for path in sorted(_inside(root)):
        if why := _why_not(path) or ("" if path in matching else "not as download.pattern says"):
            unread[why] += 1
        else:
            found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items())), unread


def kind(path: PurePath) -> str:
    """The ending of a file's name, as it stands in KINDS; "" where there is none."""
    return path.suffix.strip().lower()


def nothing_in(root: Path, unread: Counter[str]) -> str:
    """That a folder or file has no text that is read, and why, in a sentence with the next step."""
    if not root.exists():
        hint = " Write / between folders, not \\." if "\\" in str(root) else ""
        return f"There is no {root}.{hint}"
    if not unread:
        return f"There is no text in {root}."
    if not root.is_dir():
        return f"{root} is not read: {next(iter(unread))}. Read are {' '.join(KINDS)}."
    count = f"{(total := unread.total()):,} file{'s' * (total > 1)}"
    reasons = "; ".join(f"{number:,} {why}" for why, number in unread.most_common(6))
    return f"There is no text in {root}, which has {count}, not read: {reasons}. Read are {' '.join(KINDS)}."


def check_apart(path: str, pipeline: Path) -> None:
    """ValueError, in a sentence, where download.path overlaps with what a pipeline makes, which DVC would refuse.

    pipeline: the folder of the pipeline whose text it is; what another one makes may be read, but not lie inside.
    """
    place = Path(path).resolve()
    for file in (Path("dvc.yaml"), *sorted(Path().glob("*/dvc.yaml"))):
        for output in _outputs(file) if file.is_file() else ():
            made = output.resolve()
            within = made.is_relative_to(place) and (made != place or file.parent == pipeline)
            if within or (file.parent == pipeline and place.is_relative_to(made)):
                raise ValueError(
                    f"download.path is {path!r}, which {'holds' if within and made != place else 'is, or lies in,'} "
                    f"{output}, an output of {file}; DVC refuses that. Put your text into a folder of its own, such as "
                    "data/own, and name that."
                )


def _outputs(file: Path) -> Iterator[Path]:
    """What the stages of a dvc.yaml make."""
    for stage in (read_yaml(file).get("stages") or {}).values():
        for output in (each for key in ("outs", "metrics", "plots") for each in stage.get(key) or ()):
            name = output if isinstance(output, str) else next(iter(output))
            yield Path(os.path.normpath(file.parent / stage.get("wdir", "") / name))


def _inside(root: Path) -> Iterator[Path]:
    """The files of a folder, and of those in it that are not hidden; raises for what cannot be followed or opened."""

    def refuse(problem: OSError) -> None:
        raise problem

    for folder, folders, names in os.walk(root, onerror=refuse):
        here = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            _check_followed(root, here / name)
        yield from (here / name for name in names if kind(here / name) or not name.startswith("."))  # not .gitkeep


def _check_followed(root: Path, path: Path) -> None:
    """ValueError or FileNotFoundError, in a sentence, for what DVC could not follow."""
    if any("\ud800" <= character <= "\udfff" for character in path.name):
        spelt = "".join("?" if "\ud800" <= character <= "\udfff" else character for character in path.name)
        raise ValueError(
            f"The name of {path.parent / spelt} is not UTF-8 (? stands for what is not), and DVC stops at it. Rename "
            f"it: `mv {path.parent}/{spelt} {path.parent}/…`."
        )
    if path.is_symlink() and path.is_dir():
        raise ValueError(
            f"{path} is a link to a folder, into which DVC does not look: an edit there would not rerun the pipeline. "
            f"Replace it by links to its files (`cp -rs {path.resolve()} {root}` after `rm {path}`), or set "
            "download.path to that folder."
        )
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path} is a link to {path.readlink()}, which is not there, or leads back to the link. Bring back what it "
            "names (`dvc checkout`, where DVC made the link), or remove it."
        )


def _why_not(path: Path, named: bool = False) -> str:
    """Why a file is not read, as it is told of one or several; "" where it is. `named`: someone asked for this one."""
    if path.name.startswith(".") and not named:
        return "hidden"
    if not path.is_file():
        return "neither file nor folder"
    if not path.stat().st_size:
        return "empty"
    if not (ending := kind(path)):
        return "" if named or is_text(path) else "without an ending, and no UTF-8 text"
    step = STEPS.get(ending)
    return "" if ending in KINDS else f"{ending}{f' ({step})' if step else ''}"


def _strange(pattern: str) -> ValueError:
    return ValueError(f"download.pattern is {pattern!r}; write a glob inside download.path, as **/* is.")
