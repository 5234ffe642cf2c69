"""The corpus, and how it is split: `write_corpus(documents, params.download, Path("data/corpus"))`.

Documents pass through a temporary file, since whether a text stands alone, and which documents are held out, is known
only at the end; then train.parquet and validation.parquet are written, with the columns `document` (its name) and
`text`. A row holds at most 1 MiB, so a long document takes several rows, one after the other, and a new name begins a
new document. Memory stays constant, but for some bytes a document. `read_rows` reads either file.

Whole documents are held out, near-duplicates together (overlap.py); where that cannot come near the share that is
asked for, the end of the longest document is, as in nanoGPT. Left out: where documents come from
(data/sources/documents.py), so that an edit there reruns no stage that only reads rows; shuffling, and a third part for
testing.
"""

import itertools
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinygpt import config
from tinygpt.data import overlap
from tinygpt.files.atomic import writing

# Which documents are held out does not depend on params.yaml's seed: runs with different seeds are there to be
# compared, and that takes one validation text.
SHUFFLE = 0
ROW_BYTES = 2**20  # of UTF-8 in one row
GROUP_BYTES, GROUP_ROWS = 2**23, 2**14  # of one row group: what a reader holds in memory at once
LEAST = 1000  # characters, below which there is nothing to learn or to judge by
LEAST_HELD = 100  # characters of the held-out part; whether its tokens fill a context, training says
SCHEMA = pa.schema([("document", pa.string()), ("text", pa.string())])

Document = tuple[str, Iterable[str]]  # its name, and its text in pieces
Rows = overlap.Rows
Sizes = np.ndarray[Any, np.dtype[np.int64]]  # characters of each document, (documents,)


@dataclass(frozen=True)
class Part:
    """What one split holds."""

    documents: int
    rows: int
    bytes: int
    characters: int


@dataclass(frozen=True)
class Written:
    """What write_corpus wrote."""

    train: Part
    validation: Part


def write_corpus(
    documents: Iterable[Document],
    section: config.Download,
    folder: Path,
    advance: Callable[[int], object] = lambda size: None,
) -> Written:
    """Write train.parquet and validation.parquet into `folder`; `advance` hears the bytes of text as they come.

    Raises ValueError where there is too little text, and whatever the documents raise; what was in `folder` then stays.
    """
    sizes = array("q")  # characters of each document
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as spool:  # has no name, so that nothing remains when we are killed
        _write(_spooled(documents, section.max_documents, sizes, advance), spool)
        check_enough(section, sum(sizes))
        pieces = ((number, text) for number, _, _, text in _numbered(_read(spool), sizes))
        groups = overlap.near_duplicates(pieces, len(sizes))
        starts = _held_from(np.array(sizes), groups, section.validation_fraction)
        check_held(section, int((np.array(sizes) - starts).sum()))
        parts = []
        with writing(folder / "train.parquet") as train, writing(folder / "validation.parquet") as held:
            for path, held_out in ((train, False), (held, True)):
                rows = _split(_read(spool), sizes, starts)
                parts.append(_write(((name, text) for name, text, part in rows if part is held_out), path))
    return Written(parts[0], parts[1])


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """The rows (document, text) of a parquet file written here, in order, one row group in memory at a time."""
    if not path.is_file():
        raise FileNotFoundError(f"No text at {path}. Run `dvc repro download`.")
    return _read(path)


def cut(pieces: Iterable[str], limit: int = ROW_BYTES) -> Iterator[str]:
    """A text in pieces → rows of at most `limit` bytes of UTF-8 (limit ≥ 4); how it was in pieces does not matter."""
    rest = b""
    for piece in pieces:
        rest, start = rest + piece.encode(), 0
        while len(rest) - start > limit:
            end = _row_end(rest, start, limit)
            yield rest[start:end].decode()
            start = end
        rest = rest[start:]
    if rest:
        yield rest.decode()


def _row_end(text: bytes, start: int, limit: int) -> int:
    """Where a row that starts at `start` ends: after a newline, else before a space, else between two characters."""
    newline = text.rfind(b"\n", start, start + limit)
    if newline >= 0:
        return newline + 1
    space = text.rfind(b" ", start + 1, start + limit)  # before it, since tokenizers join a space to the word after
    if space >= 0:
        return space
    end = start + limit
    while text[end] & 0b1100_0000 == 0b1000_0000:  # a continuation byte
        end -= 1
    return end


def _spooled(
    documents: Iterable[Document], most: int | None, sizes: "array[int]", advance: Callable[[int], object]
) -> Iterator[tuple[str, str]]:
    """The rows of the first `most` documents that are not empty; notes the characters of each in `sizes`."""
    for name, pieces in documents:
        size = 0
        for row in cut(pieces):
            size += len(row)
            advance(len(row.encode()))
            yield name, row
        if size:
            sizes.append(size)
        if len(sizes) == most:
            return


def _numbered(rows: Rows, sizes: "array[int]") -> Iterator[tuple[int, int, str, str]]:
    """Each row with the number of its document before it, and how many characters of the document come before it."""
    number = before = 0
    for name, text in rows:
        if before == sizes[number]:
            number, before = number + 1, 0
        yield number, before, name, text
        before += len(text)


def _split(rows: Rows, sizes: "array[int]", starts: Sizes) -> Iterator[tuple[str, str, bool]]:
    """Each row with whether it is held out; starts: from which character of each document on it is."""
    for number, before, name, text in _numbered(rows, sizes):
        kept = max(0, int(starts[number]) - before)
        yield from ((name, part, held) for part, held in ((text[:kept], False), (text[kept:], True)) if part)


def _held_from(sizes: Sizes, groups: Sizes, fraction: float) -> Sizes:
    """From which character of each document on it is held out, (documents,): 0 for all of it, its size for nothing.

    groups: those of near-duplicates, kept together. If whole groups cannot make half of `fraction`, whole documents are
    held out; if these cannot either, since nearly all text is one document, the end of the longest.
    """
    for together in (groups, np.arange(len(sizes))):
        held = _held_out(sizes, fraction, together)
        if 2 * sizes[held].sum() >= fraction * sizes.sum():
            return np.where(held, 0, sizes)
    starts, longest = sizes.copy(), sizes.argmax()
    starts[longest] = int(sizes[longest] * (1 - fraction))
    return starts


def _held_out(sizes: Sizes, fraction: float, groups: Sizes | None = None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which documents to hold out: in a random order, each with its group, until they reach `fraction` of all text.

    A group with which more than half of the text would be held out is passed over.
    """
    groups = np.arange(len(sizes)) if groups is None else groups
    characters, total, taken = np.bincount(groups, sizes), int(sizes.sum()), 0
    held = np.zeros(len(characters), dtype=bool)
    for group in groups[np.random.default_rng(SHUFFLE).permutation(len(sizes))].tolist():
        if taken >= fraction * total:
            break
        if not held[group] and 2 * (taken + characters[group]) <= total:
            held[group] = True
            taken += int(characters[group])
    return held[groups]


def _write(rows: Rows, where: Path | IO[bytes]) -> Part:
    """Write rows as parquet, and count them."""
    documents = count = size = characters = 0
    last: str | None = None
    with pq.ParquetWriter(where, SCHEMA, compression="zstd", use_dictionary=["document"]) as file:
        for group in _groups(rows):
            names, texts = [name for name, _ in group], [text for _, text in group]
            file.write_batch(pa.record_batch([names, texts], schema=SCHEMA))
            documents += sum(name != before for before, name in itertools.pairwise([last, *names]))
            last = names[-1]
            count += len(group)
            size += sum(len(text.encode()) for text in texts)
            characters += sum(map(len, texts))
    return Part(documents, count, size, characters)


def _groups(rows: Rows) -> Iterator[list[tuple[str, str]]]:
    group: list[tuple[str, str]] = []
    size = 0
    for name, text in rows:
        group.append((name, text))
        size += len(text.encode())
        if size >= GROUP_BYTES or len(group) == GROUP_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _read(where: Path | IO[bytes]) -> Iterator[tuple[str, str]]:
    file = pq.ParquetFile(where)
    for number in range(file.num_row_groups):
        group = file.read_row_group(number, columns=["document", "text"])
        yield from zip(group["document"].to_pylist(), group["text"].to_pylist(), strict=True)


def check_enough(section: config.Download, characters: int, least: int = LEAST) -> None:
    """ValueError, in a sentence, where a text has fewer characters than it takes to learn and to judge by."""
    if characters >= least:
        return
    place = {"files": section.url or section.path, "hub": section.dataset}.get(section.source, section.source)
    raise ValueError(
        f"{place} holds {characters:,} characters of text; a model needs {least:,} or more. "
        "Add text, or set download.source to shakespeare."
    )


def check_held(section: config.Download, characters: int) -> None:
    """ValueError, in a sentence, where fewer characters would be held out than it takes to judge by."""
    if characters < LEAST_HELD:
        raise ValueError(
            f"Only {characters} characters would be held out, and a model is judged by {LEAST_HELD} or more. Raise "
            f"download.validation_fraction, which is {section.validation_fraction:g}, or add text."
        )
