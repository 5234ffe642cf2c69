"""Read UTF-8 text: `for chunk in chunks(path)`; `not_text(path)` is the error for any other file.

The error says what the file is and how to convert it. Other encodings cannot be detected reliably: charset-normalizer
proposes some, and the error shows how the text reads in each. Left out: reading other encodings.
"""

import codecs
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tinygpt.files.paths import hidden
from tinygpt.files.text import check_fetched

CHUNK = 2**20  # characters or bytes read at once
SAMPLE = 2**16  # bytes from which an encoding is inferred
OLD, NEW = "\1", "\2"  # placeholders for the names of the file and of its replacement
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
BYTE_ORDER_MARKS = {  # UTF-32 first, because its mark starts with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Common encodings by Python's names. Of encodings that decode a text equally, the error names the first.
ENCODINGS = (
    *("cp1252", "cp932", "gb18030", "big5", "cp949", "euc_jp", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254"),
    *("cp1255", "cp1256", "cp874", "cp866", "mac_roman", "cp850"),
)
ICONV = {"euc_jp": "euc-jp", "koi8_r": "koi8-r", "mac_roman": "macintosh"}  # Python → iconv, where the names differ
KANA = re.compile("[\u3041-\u30ff]{3}")  # indicates Japanese, which charset-normalizer often mistakes for Korean
CONTROL = re.compile(r"[\0-\x07\x0e-\x1a\x1c-\x1f\x7f]")


def chunks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file of any size, without a byte order mark, with \\n as line ends.

    Raises ValueError if it is not UTF-8 text.
    """
    check_beginning(path)
    with open_text(path) as file:
        try:
            while chunk := file.read(CHUNK):
                if "\0" in chunk:
                    raise not_text(path)
                yield chunk
        except UnicodeDecodeError:  # its position counts from the last chunk, not from the start
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
        return _error(path, f"is {known[0]}, not text", f"{known[1]}.")
    position, wide = _first_invalid(path), _utf16_or_utf32(beginning)
    if wide is not None:
        step = f"It is {wide.upper()}. Convert it: `iconv -f {wide} -t utf-8 {OLD} > {NEW}`."
    elif _read(path, position, 1) == b"\0":
        return _error(
            path, f"is not text (byte {position} is NUL)", f"If it is: `tr -d '\\000' < {OLD} > {NEW}` removes NULs."
        )
    else:
        start = max(0, position - 2**10)
        step = _conversion(_read(path, start, SAMPLE), position - start)
    return _error(path, f"is not UTF-8 text (byte {position})", step)


def _conversion(sample: bytes, position: int) -> str:
    """How to convert a text that is invalid UTF-8 at a position of a sample."""
    if _is_damaged(sample):
        return f"It is UTF-8 with damaged bytes. Drop those: `iconv -c -f utf-8 -t utf-8 {OLD} > {NEW}`."
    names = _candidates(sample)
    if not names:
        return "No common encoding fits. If it is text, save it as UTF-8."
    readings = " or ".join(f"{name} ({_reading(sample, position, name)!r})" for name in names)
    return (
        f"It may be {readings}. Convert it from the one that reads right, and check the result: "
        f"`iconv -f {ICONV.get(names[0], names[0])} -t utf-8 {OLD} > {NEW}`."
    )


def _error(path: Path, what: str, step: str) -> ValueError:
    """The error, with the names of the file and of its replacement filled in."""
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
    return next((known for start, known in FORMATS.items() if beginning.startswith(start)), None)


def _is_utf8(beginning: bytes) -> bool:
    """Whether the beginning of a file is UTF-8; its last character may be incomplete if the file goes on."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning, final=len(beginning) < SAMPLE)
    except UnicodeDecodeError:
        return False
    return True


def _first_invalid(path: Path) -> int:
    """The offset of the first byte that is not UTF-8, or is NUL; the size of the file if there is none."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while True:
            chunk, pending = file.read(CHUNK), len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as problem:
                return done + problem.start - pending
            if b"\0" in chunk or not chunk:
                return done + max(0, chunk.find(b"\0"))
            done += len(chunk)


def _utf16_or_utf32(beginning: bytes) -> str | None:
    """The UTF-16 or UTF-32 encoding of a text, by its byte order mark or by its NULs; None if it is neither."""
    if marked := next((name for mark, name in BYTE_ORDER_MARKS.items() if beginning.startswith(mark)), None):
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
    invalid, non_ascii = text.count("\ufffd"), sum(character > "\x7f" for character in text)
    return invalid < non_ascii / 5


def _candidates(sample: bytes) -> list[str]:
    """The encodings that a text may be in: at most three, the likeliest first."""
    import charset_normalizer  # slow to load, rarely needed

    end = max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1 if len(sample) == SAMPLE else len(sample)
    ends = (
        [end] if end > SAMPLE // 2 or end == len(sample) else range(SAMPLE - 3, SAMPLE + 1)
    )  # do not split a character
    scores: dict[str, float] = {}  # lower is likelier
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


def _reading(sample: bytes, position: int, encoding: str) -> str:
    """The text around a position, decoded."""
    before, after = sample[:position].decode(encoding, "ignore"), sample[position:].decode(encoding, "replace")
    return " ".join((before[-12:] + after[:12]).split())
