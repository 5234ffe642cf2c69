"""Files that should be UTF-8 text: `pieces(path)` reads one, `not_text(path)` says what it is instead, and what to do.

A text in another encoding is refused, since nothing in it says which that is: charset-normalizer names those that
fit, and the sentence shows how each reads, for a person to choose. Left out: reading anything but UTF-8.
"""

import codecs
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tinygpt import files

PIECE = 2**20  # characters or bytes read at once
SAMPLE = 2**16  # bytes from which an encoding is guessed
FORMATS = {  # how files begin that are no text → what they are, and the next step
    b"%PDF-": ("a PDF", "`pdftotext FILE` makes text of it"),
    b"{\\rtf": ("RTF", "Save it as plain text"),
    b"PK\x03\x04": ("a ZIP archive, as .docx, .odt and .epub are", "Unpack it, or save it as plain text"),
    b"\xd0\xcf\x11\xe0": ("a document of an old Office", "Save it as plain text"),
    b"PAR1": ("a Parquet file", "Let its name end in .parquet"),
    b"\x1f\x8b": ("packed by gzip", "`gunzip < OLD > NEW` unpacks it"),
    b"BZh91AY&SY": ("packed by bzip2", "`bunzip2 < OLD > NEW` unpacks it"),
    b"\xfd7zXZ\0": ("packed by xz", "`unxz < OLD > NEW` unpacks it"),
    b"(\xb5/\xfd": ("packed by Zstandard", "`unzstd < OLD > NEW` unpacks it"),
}
MARKS = {  # byte order marks, the longer first, since UTF-16's begins UTF-32's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Encodings in which texts are found, by Python's names; of those that read a text alike the first is named.
ENCODINGS = (
    *("cp1252", "cp932", "gb18030", "big5", "cp949", "euc_jp", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254"),
    *("cp1255", "cp1256", "cp866", "mac_roman", "cp850"),
)
ICONV = {"euc_jp": "euc-jp", "koi8_r": "koi8-r", "mac_roman": "macintosh"}  # where iconv has another name
CONTROL = re.compile(r"[\0-\x07\x0e-\x1a\x1c-\x1f\x7f]")


def pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file of any size, without a byte order mark, lines ended by \\n alone.

    Raises ValueError, in a sentence, where it is something else.
    """
    check_beginning(path)
    with open_text(path) as file:
        try:
            while piece := file.read(PIECE):
                if "\0" in piece:
                    raise not_text(path)
                yield piece
        except UnicodeDecodeError:  # its position counts from the last piece, not from the start
            raise not_text(path) from None


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """A text file as everyone here opens it; reading it raises UnicodeDecodeError where it is not UTF-8."""
    return path.open(encoding="utf-8-sig", newline=newline)


def is_text(path: Path) -> bool:
    """Whether the beginning of a file reads as text; its name says nothing."""
    beginning = _read(path, 0, SAMPLE)
    return _is_utf8(beginning) and not CONTROL.search(beginning.decode(errors="ignore")) and not _format(beginning)


def check_beginning(path: Path) -> None:
    """ValueError, in a sentence, where the beginning of a file shows that it is no text."""
    files.check_fetched(path)
    beginning = _read(path, 0, SAMPLE)
    if b"\0" in beginning or _format(beginning):
        raise not_text(path)


def not_text(path: Path) -> ValueError:
    """What a file is instead of UTF-8 text, as an error with the next step."""
    beginning = _read(path, 0, SAMPLE)
    if known := _format(beginning):
        return _told(path, f"is {known[0]}, not text", f"{known[1]}.")
    place, encoding = _first_wrong(path), _wide(beginning)
    if encoding is None and _read(path, place, 1) == b"\0":
        return _told(path, f"is no text (byte {place} is NUL)", "If it is, `tr -d '\\000' < OLD > NEW` removes those.")
    what = f"is not UTF-8 text (byte {place})"
    if encoding is not None:
        return _told(path, what, f"It is {encoding.upper()}: `iconv -f {encoding} -t utf-8 OLD > NEW` converts it.")
    start = max(0, place - 2**10)
    sample = _read(path, start, SAMPLE)
    if _is_damaged(sample):
        step = "It is UTF-8 with damaged bytes: `iconv -c -f utf-8 -t utf-8 OLD > NEW` leaves those out."
        return _told(path, what, step)
    readings = [f"{name} ({_reading(sample, place - start, name)!r})" for name in _candidates(sample)]
    if not readings:
        return _told(path, what, "Save it as UTF-8.")
    name = ICONV.get(first := readings[0].partition(" ")[0], first)
    step = f"It may be {' or '.join(readings)}. Convert it from the one that reads right, and look at the result: "
    return _told(path, what, f"{step}`iconv -f {name} -t utf-8 OLD > NEW`.")


def _told(path: Path, what: str, step: str) -> ValueError:
    """The sentences: the names of the files put in, and what is to be done with the new one."""
    if path.parent == files.hidden("downloads"):
        step = step.replace("OLD", "FILE").replace("NEW", "FILE.txt")
        return ValueError(
            f"What download.url gave {what}. Save it yourself as FILE. {step} Then set download.path to the result and "
            "download.url to null."
        )
    old, new = (shlex.quote(str(name)) for name in (path, f"{path.with_suffix('')}.utf8{path.suffix}"))
    step = step.replace("OLD", old).replace("NEW", new).replace("FILE", old)
    return ValueError(f"{path} {what}. {step} Then remove the old file.")


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _format(beginning: bytes) -> tuple[str, str] | None:
    """What a file is, if its beginning is that of a format that is no text."""
    return next((told for start, told in FORMATS.items() if beginning.startswith(start)), None)


def _is_utf8(beginning: bytes) -> bool:
    """Whether a beginning is UTF-8; a character may be cut off by its end where more follows."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning, final=len(beginning) < SAMPLE)
    except UnicodeDecodeError:
        return False
    return True


def _first_wrong(path: Path) -> int:
    """The place of the first byte that is not UTF-8, or is NUL; the size of the file where there is none."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while True:
            piece, waiting = file.read(PIECE), len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as problem:
                return done + problem.start - waiting
            if b"\0" in piece or not piece:
                return done + max(0, piece.find(b"\0"))
            done += len(piece)


def _wide(beginning: bytes) -> str | None:
    """The encoding of two or four bytes a character that a text is in, by its mark, or by where its NULs are."""
    if marked := next((name for mark, name in MARKS.items() if beginning.startswith(mark)), None):
        return marked
    zeros = beginning.count(0)
    if not zeros or (_is_utf8(beginning) and zeros < len(beginning) / 4):  # a text with some NULs in it
        return None
    little = beginning[1::2].count(0) > beginning[::2].count(0)  # of a Latin letter the upper byte is NUL
    for name in ("utf-32le", "utf-32be", "utf-16le" if little else "utf-16be"):
        try:
            text = codecs.getincrementaldecoder(name)().decode(beginning)
        except UnicodeDecodeError:
            continue
        if text and not CONTROL.search(text):
            return name
    return None


def _is_damaged(sample: bytes) -> bool:
    """Whether all but a few of the characters beyond ASCII are good UTF-8."""
    text = sample.decode("utf-8", errors="replace")
    wrong, beyond = text.count("\ufffd"), sum(character > "\x7f" for character in text)
    return wrong < beyond / 5


def _candidates(sample: bytes) -> list[str]:
    """Encodings in which a text may be, the likeliest first, at most three."""
    import charset_normalizer  # late: it takes a while to load, and few need it

    end = max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1 if len(sample) == SAMPLE else len(sample)
    found = list(charset_normalizer.from_bytes(sample[: end or None], cp_isolation=list(ENCODINGS)))
    likely = [match for match in found if match.chaos < found[0].chaos + 0.05]
    names = {
        next(name for name in ENCODINGS if name in match.could_be_from_charset): match.coherence for match in likely
    }
    return sorted(names, key=lambda name: (-round(names[name], 2), ENCODINGS.index(name)))[:3]


def _reading(sample: bytes, place: int, encoding: str) -> str:
    """How the text around the first wrong byte reads."""
    before, after = sample[:place].decode(encoding, "ignore"), sample[place:].decode(encoding, "replace")
    return " ".join((before[-12:] + after[:12]).split())
