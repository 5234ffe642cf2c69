"""Reading UTF-8 text: `for piece in pieces(path)`; `not_text(path)` is the error for a file that is something else.

The error says what the file is and how to convert it. Nothing in a text says which other encoding it is in:
charset-normalizer proposes some, and the error shows how the text reads in each. Left out: reading other encodings.
"""

import codecs
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tinygpt.files.paths import hidden
from tinygpt.files.text import check_fetched

PIECE = 2**20  # characters or bytes read at once
SAMPLE = 2**16  # bytes from which an encoding is guessed
OLD, NEW = "\1", "\2"  # stand for the names of the file and of its replacement until the error is complete
FORMATS = {  # first bytes → what such a file is, and the next step
    b"%PDF-": ("a PDF", f"Extract its text: `pdftotext {OLD}`"),
    b"{\\rtf": ("RTF", "Save it as plain text"),
    b"PK\x03\x04": ("a ZIP archive, as .docx, .odt and .epub are", "Unpack it, or save it as plain text"),
    b"\xd0\xcf\x11\xe0": ("an old Office document", "Save it as plain text"),
    b"PAR1": ("a Parquet file", "Rename it to .parquet"),
    b"\x1f\x8b": ("gzip-compressed", f"Unpack it: `gunzip < {OLD} > {NEW}`"),
    b"BZh91AY&SY": ("bzip2-compressed", f"Unpack it: `bunzip2 < {OLD} > {NEW}`"),
    b"\xfd7zXZ\0": ("xz-compressed", f"Unpack it: `unxz < {OLD} > {NEW}`"),
    b"(\xb5/\xfd": ("Zstandard-compressed", f"Unpack it: `unzstd < {OLD} > {NEW}`"),
}
MARKS = {  # byte order marks; UTF-32 first, since its mark starts with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Common encodings of text files, by Python's names. Of those that decode a text to the same, the error names the first.
ENCODINGS = (
    *("cp1252", "cp932", "gb18030", "big5", "cp949", "euc_jp", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254"),
    *("cp1255", "cp1256", "cp874", "cp866", "mac_roman", "cp850"),
)
ICONV = {"euc_jp": "euc-jp", "koi8_r": "koi8-r", "mac_roman": "macintosh"}  # Python → iconv, where the names differ
KANA = re.compile("[\u3041-\u30ff]{3}")  # a run of them: Japanese, which charset-normalizer often takes for Korean
CONTROL = re.compile(r"[\0-\x07\x0e-\x1a\x1c-\x1f\x7f]")


def pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file of any size, without a byte order mark, lines ended by \\n alone.

    Raises ValueError if it is something else.
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
    """Open a UTF-8 file with or without a byte order mark; reading it may raise UnicodeDecodeError."""
    return path.open(encoding="utf-8-sig", newline=newline)


def is_text(path: Path) -> bool:
    """Whether the beginning of a file is UTF-8 text."""
    beginning = _read(path, 0, SAMPLE)
    return _is_utf8(beginning) and not CONTROL.search(beginning.decode(errors="ignore")) and not _format(beginning)


def check_beginning(path: Path) -> None:
    """ValueError if the beginning of a file shows that it is not text."""
    check_fetched(path)
    beginning = _read(path, 0, SAMPLE)
    if b"\0" in beginning or _format(beginning):
        raise not_text(path)


def not_text(path: Path) -> ValueError:
    """The error for a file that is not UTF-8 text: what it is, and the next step."""
    beginning = _read(path, 0, SAMPLE)
    if known := _format(beginning):
        return _told(path, f"is {known[0]}, not text", f"{known[1]}.")
    place, wide = _first_wrong(path), _wide(beginning)
    if wide is not None:
        step = f"It is {wide.upper()}. Convert it: `iconv -f {wide} -t utf-8 {OLD} > {NEW}`."
    elif _read(path, place, 1) == b"\0":
        return _told(
            path, f"is not text (byte {place} is NUL)", f"If it is: `tr -d '\\000' < {OLD} > {NEW}` removes NULs."
        )
    else:
        start = max(0, place - 2**10)
        step = _conversion(_read(path, start, SAMPLE), place - start)
    return _told(path, f"is not UTF-8 text (byte {place})", step)


def _conversion(sample: bytes, place: int) -> str:
    """How to convert a text that is wrong at `place` of a sample."""
    if _is_damaged(sample):
        return f"It is UTF-8 with damaged bytes. Drop those: `iconv -c -f utf-8 -t utf-8 {OLD} > {NEW}`."
    names = _candidates(sample)
    if not names:
        return "No common encoding fits. If it is text, save it as UTF-8."
    readings = " or ".join(f"{name} ({_reading(sample, place, name)!r})" for name in names)
    return (
        f"It may be {readings}. Convert it from the one that reads right, and check the result: "
        f"`iconv -f {ICONV.get(names[0], names[0])} -t utf-8 {OLD} > {NEW}`."
    )


def _told(path: Path, what: str, step: str) -> ValueError:
    """The error, with the names of the file and of its replacement put in."""
    if path.parent == hidden("downloads"):
        return ValueError(
            f"What download.url gave {what}. Save it yourself as FILE. {step.translate({1: 'FILE', 2: 'FILE.txt'})} "
            "Then set download.path to the result and download.url to null."
        )
    old, new = (shlex.quote(str(name)) for name in (path, f"{path.with_suffix('')}.utf8{path.suffix}"))
    return ValueError(f"{path} {what}. {step.translate({1: old, 2: new})} Then remove the old file.")


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _format(beginning: bytes) -> tuple[str, str] | None:
    """What a file is and the next step, if its beginning is that of a known format other than text."""
    return next((told for start, told in FORMATS.items() if beginning.startswith(start)), None)


def _is_utf8(beginning: bytes) -> bool:
    """Whether the beginning of a file is UTF-8; its last character may be incomplete if the file goes on."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning, final=len(beginning) < SAMPLE)
    except UnicodeDecodeError:
        return False
    return True


def _first_wrong(path: Path) -> int:
    """The offset of the first byte that is not UTF-8, or is NUL; the size of the file if there is none."""
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
    """The UTF-16 or UTF-32 encoding of a text, by its byte order mark or by its NULs; None if it is neither."""
    if marked := next((name for mark, name in MARKS.items() if beginning.startswith(mark)), None):
        return marked
    zeros = beginning.count(0)
    if not zeros or (_is_utf8(beginning) and zeros < len(beginning) / 4):  # UTF-8 with some NULs
        return None
    little = beginning[1::2].count(0) > beginning[::2].count(0)  # the upper byte of a Latin letter is NUL
    for name in ("utf-32le", "utf-32be", "utf-16le" if little else "utf-16be"):
        try:
            text = codecs.getincrementaldecoder(name)().decode(beginning)
        except UnicodeDecodeError:
            continue
        if text and not CONTROL.search(text):
            return name
    return None


def _is_damaged(sample: bytes) -> bool:
    """Whether most of the non-ASCII characters are valid UTF-8."""
    text = sample.decode("utf-8", errors="replace")
    wrong, beyond = text.count("\ufffd"), sum(character > "\x7f" for character in text)
    return wrong < beyond / 5


def _candidates(sample: bytes) -> list[str]:
    """The encodings that a text may be in: at most three, the likeliest first."""
    import charset_normalizer  # late: slow to load, rarely needed

    end = max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1 if len(sample) == SAMPLE else len(sample)
    ends = [end] if end > SAMPLE // 2 or end == len(sample) else range(SAMPLE - 3, SAMPLE + 1)  # cut no character
    scores: dict[str, float] = {}  # the less, the likelier
    for match in (
        match
        for end in ends
        for match in charset_normalizer.from_bytes(sample[:end], cp_isolation=list(ENCODINGS), threshold=0.5)
    ):
        name = next(name for name in ENCODINGS if name in match.could_be_from_charset)
        japanese = KANA.search(str(match)) is not None
        scores[name] = round(match.chaos - match.coherence / 2 - japanese / 2, 2)
    ranked = sorted(scores, key=lambda name: (scores[name], ENCODINGS.index(name)))
    return [name for name in ranked if scores[name] <= scores[ranked[0]] + 0.1][:3]


def _reading(sample: bytes, place: int, encoding: str) -> str:
    """The text around an offset, decoded."""
    before, after = sample[:place].decode(encoding, "ignore"), sample[place:].decode(encoding, "replace")
    return " ".join((before[-12:] + after[:12]).split())
