"""Users' own text files: `listed(Path("data/own"), "**/*")` returns those to read, and why others are skipped.

A link to a file is followed. What DVC fails on or does not notice is an error: a link to a folder, a broken link, a
name that is not UTF-8, and a download.path that overlaps with the outputs of a pipeline (`check_apart`). Hidden folders
are ignored.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

from tinygpt.data.sources.encodings import is_text
from tinygpt.data.sources.records import READERS
from tinygpt.yaml_files import read_stages

KINDS = (".txt", ".md", *READERS)
STEPS = {  # what to do with files of other kinds
    ".json": "`jq -c '.[]' x.json > x.jsonl` makes records of an array",
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"), "unpack it"),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".epub", ".rtf"), "save it as plain text"),
    ".dvc": "`dvc pull` fetches its file",
}


def listed(root: Path, pattern: str) -> tuple[dict[str, Path], Counter[str]]:
    """The files to read of a file or folder (name → path, sorted), and the skipped ones (reason → count).

    Raises ValueError or FileNotFoundError for links and names that DVC cannot handle.
    """
    if root.is_symlink() and not root.exists():
        _check_followed(root, root)
    if not root.exists():
        return {}, Counter()
    if not root.is_dir():
        why = _why_not(root, named=True)
        return ({}, Counter([why])) if why else ({root.name: root}, Counter())
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise _invalid(pattern)
    try:
        matching = set(root.glob(pattern))
    except (ValueError, NotImplementedError):
        raise _invalid(pattern) from None
    found, skipped = {}, Counter[str]()
    for path in sorted(_inside(root)):
        if why := _why_not(path) or ("" if path in matching else "outside download.pattern"):
            skipped[why] += 1
        else:
            found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items())), skipped


def kind(path: PurePath) -> str:
    """The extension of a file's name, as in KINDS; "" if it has none."""
    return path.suffix.strip().lower()


def nothing_in(root: Path, skipped: Counter[str]) -> str:
    """The message for a folder or file without text to read, with the reasons."""
    if not root.exists():
        hint = " Write / between folders, not \\." if "\\" in str(root) else ""
        return f"There is no {root}.{hint}"
    if not skipped:
        return f"There is no text in {root}."
    if not root.is_dir():
        return f"{root} is not read: {next(iter(skipped))}. TinyGPT reads {' '.join(KINDS)}."
    total = skipped.total()
    count = f"Its {total:,} files are" if total > 1 else "Its only file is"
    reasons = "; ".join(f"{number:,} {why}" for why, number in skipped.most_common(6))
    return f"There is no text in {root}. {count} not read: {reasons}. TinyGPT reads {' '.join(KINDS)}."


def check_apart(path: str, pipeline: Path) -> None:
    """ValueError if download.path overlaps with the outputs of a pipeline, which DVC refuses.

    pipeline: the folder of the pipeline that reads it. An output of another pipeline may be download.path itself, but
    not be inside it.
    """
    # not resolved, like in DVC: an output may be a link into its cache
    place = Path(os.path.normpath(Path(path).absolute()))
    for file in (Path("dvc.yaml"), *sorted(Path().glob("*/dvc.yaml"))):
        for output in _outputs(file) if file.is_file() else ():
            made = output.absolute()
            within = made.is_relative_to(place) and (made != place or file.parent == pipeline)
            if within or (file.parent == pipeline and place.is_relative_to(made)):
                how = "contains" if within and made != place else "is, or is inside,"
                raise ValueError(
                    f"download.path is {path!r}, which {how} {output}, an output of {file}; DVC refuses that. Put your "
                    "text into a folder of its own, such as data/own."
                )


def _outputs(file: Path) -> Iterator[Path]:
    """The outputs of all stages of a dvc.yaml."""
    for stage in read_stages(file):
        for output in (each for key in ("outs", "metrics", "plots") for each in stage.get(key) or ()):
            name = output if isinstance(output, str) else next(iter(output))
            yield Path(os.path.normpath(file.parent / (stage.get("wdir") or "") / name))


def _inside(root: Path) -> Iterator[Path]:
    """The files of a folder and its visible subfolders; raises for folders that cannot be opened, and like below."""

    def refuse(problem: OSError) -> None:
        raise problem

    for folder, folders, names in os.walk(root, onerror=refuse):
        here = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            _check_followed(root, here / name)
        yield from (here / name for name in names if kind(here / name) or not name.startswith("."))  # not .gitkeep


def _check_followed(root: Path, path: Path) -> None:
    """ValueError or FileNotFoundError for a link or a name that DVC cannot handle."""
    spelt = path.name.encode("utf-8", "replace").decode()
    if spelt != path.name:
        raise ValueError(
            f"The name of {path.parent / spelt} is not UTF-8 (each ? is a byte that is not), and DVC fails on it. "
            f"Rename it: `mv {path.parent / spelt} {path.parent}/…`."
        )
    if path.is_symlink() and path.parent.resolve().is_relative_to(os.path.realpath(path)):
        raise ValueError(f"{path} is a link to a folder that contains it. Remove the link.")
    if path.is_symlink() and path.is_dir():
        raise ValueError(
            f"{path} is a link to a folder. DVC does not look inside, so an edit there would not rerun the pipeline. "
            f"Link its files instead: `rm {shlex.quote(str(path))} && cp -rs {shlex.quote(str(path.resolve()))} "
            f"{shlex.quote(str(root))}`. Or set download.path to that folder."
        )
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path} is a link to {path.readlink()}, which does not exist or links back. Restore it (`dvc checkout`, "
            "if DVC made the link), or remove the link."
        )


def _why_not(path: Path, named: bool = False) -> str:
    """Why a file is skipped; "" if it is read. named: download.path is this file itself."""
    if path.name.startswith(".") and not named:
        return "hidden"
    if not path.is_file():
        return "not a regular file"
    if not path.stat().st_size:
        return "empty"
    if not (extension := kind(path)):
        return "" if named or is_text(path) else "without an extension, and not UTF-8 text"
    step = STEPS.get(extension)
    return "" if extension in KINDS else f"{extension}{f' ({step})' if step else ''}"


def _invalid(pattern: str) -> ValueError:
    return ValueError(f"download.pattern is {pattern!r}; write a glob inside download.path, such as **/*.")
