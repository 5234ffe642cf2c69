"""The corpus, and how it is split: `write_corpus(documents, params.download, Path("data/corpus"))`.

Documents pass through a temporary file, since whether a text stands alone, and which documents are held out, is known
only at the end; then train.parquet and validation.parquet are written, with the columns `document` (its name) and
`text`. A row holds at most 1 MiB, so a long document takes several rows, one after the other, and a new name begins a
new document. Memory stays constant, but for some bytes a document. `read_rows` reads either file.

Left out: where documents come from (sources.py), so that an edit there reruns no stage that only reads rows; shuffling,
and a third part for testing.
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

from tinygpt import config, files

# Which documents are held out does not depend on params.yaml's seed: runs with different seeds are there to be
# compared, and that takes one validation text.
SHUFFLE = 0
ROW_BYTES = 2**20  # of UTF-8 in one row
GROUP_BYTES, GROUP_ROWS = 2**23, 2**14  # of one row group: what a reader holds in memory at once
LEAST = 1000  # characters, below which there is nothing to learn or to judge by
SCHEMA = pa.schema([("document", pa.string()), ("text", pa.string())])

Document = tuple[str, Iterable[str]]  # its name, and its text in pieces
Rows = Iterable[tuple[str, str]]  # document, text


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
        parts = []
        with files.writing(folder / "train.parquet") as train, files.writing(folder / "validation.parquet") as held:
            for path, held_out in ((train, False), (held, True)):
                rows = _split(_read(spool), sizes, section.validation_fraction)
                parts.append(_write(((name, text) for name, text, part in rows if part is held_out), path))
            if not all(part.characters for part in parts):
                raise ValueError("One part of the split would be empty. Raise download.validation_fraction.")
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


def _split(rows: Rows, sizes: "array[int]", fraction: float) -> Iterator[tuple[str, str, bool]]:
    """Each row with whether it is held out; of a lone document the end is, as in nanoGPT."""
    held = _held_out(np.array(sizes), fraction)
    number, left = -1, 0
    until = int(sizes[0] * (1 - fraction))
    for name, text in rows:
        if len(sizes) == 1:
            yield from ((name, part, end) for part, end in ((text[:until], False), (text[until:], True)) if part)
            until = max(0, until - len(text))
            continue
        if not left:
            number, left = number + 1, sizes[number + 1]
        left -= len(text)
        yield name, text, bool(held[number])


def _held_out(sizes: np.ndarray[Any, np.dtype[np.int64]], fraction: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which documents to hold out: in a random order, until they reach `fraction` of all characters.

    A document with more than half of the text is always trained on, and each part gets one document at least.
    """
    order = np.random.default_rng(SHUFFLE).permutation(len(sizes))
    order = order[2 * sizes[order] <= sizes.sum()]
    count = int(np.searchsorted(np.cumsum(sizes[order]), fraction * sizes.sum())) + 1
    held = np.zeros(len(sizes), dtype=bool)
    held[order[: min(count, len(sizes) - 1)]] = True
    return held


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
