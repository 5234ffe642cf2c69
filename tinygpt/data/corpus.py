"""Write the corpus, split into training and validation: `write_corpus(documents, params.download, folder)`.

train.parquet and validation.parquet have the columns `document` (its name) and `text`. A row holds at most 1 MiB; a
long document takes several consecutive rows, and a new name begins a new document. `read_rows` reads either file.
Documents pass through a temporary file, because the split is known only at the end; memory is constant except for a
few bytes per document.

Conversations are documents, too: each is one row, in a column `messages` instead of `text` (conversations.py).

Whole documents are held out, near-duplicates together (overlap.py). If that cannot come near `validation_fraction`, the
end of the longest document is held out, as in nanoGPT. The sources are a module of their own
(data/sources/documents.py), so that an edit there does not rerun stages that only read rows. Left out: shuffling, and a
test split.
"""

import itertools
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinygpt import config
from tinygpt.data import conversations, overlap
from tinygpt.data.conversations import Conversation
from tinygpt.files.atomic import writing

# The split does not depend on params.yaml's seed: comparing runs with different seeds needs one validation text.
SPLIT_SEED = 0
ROW_BYTES = 2**20  # of UTF-8 in one row
GROUP_BYTES, GROUP_ROWS = 2**23, 2**14  # of one row group, which a reader holds in memory
LEAST = 1000  # fewest characters to train and evaluate on
LEAST_HELD = 100  # fewest held-out characters; training checks that their tokens fill a context
SCHEMA = pa.schema([("document", pa.string()), ("text", pa.string())])

Document = tuple[str, Iterable[str] | Conversation]  # its name, and its text in chunks or its messages
Rows = overlap.Rows
Sizes = np.ndarray[Any, np.dtype[np.int64]]  # characters of each document, (documents,)


@dataclass(frozen=True)
class Part:
    """The size of one split."""

    documents: int
    rows: int
    bytes: int
    characters: int


@dataclass(frozen=True)
class Written:
    """The sizes that write_corpus wrote."""

    train: Part
    validation: Part


def write_corpus(
    documents: Iterable[Document],
    section: config.Download,
    folder: Path,
    advance: Callable[[int], object] = lambda size: None,
    is_held_out: Callable[[str], bool] | None = None,
) -> Written:
    """Write train.parquet and validation.parquet into `folder`; `advance` is called with the bytes of text read.

    is_held_out: whether the document of a name is held out, for a source that knows it. All documents are texts, or all
    are conversations. Raises ValueError if there is too little text, and any error of the documents; `folder` is then
    unchanged.
    """
    sizes = array("q")  # characters of each document
    folder.mkdir(parents=True, exist_ok=True)
    documents = iter(documents)
    first = next(documents, None)
    chat = first is not None and isinstance(first[1], Conversation)
    documents = itertools.chain([] if first is None else [first], documents)
    with tempfile.TemporaryFile(dir=folder) as spool:  # unnamed, so that nothing remains if the process is killed
        _write(_spooled(documents, chat, section.max_documents, sizes, advance), spool)
        check_enough(section, sum(sizes))
        if is_held_out:
            starts = np.where([is_held_out(name) for name, _ in _read(spool)], 0, np.array(sizes))  # a row each
        else:
            numbered = _numbered(_read(spool), sizes)
            chunks = (
                (n, conversations.plain(conversations.from_row(row)) if chat else row) for n, _, _, row in numbered
            )
            groups = overlap.near_duplicates(chunks, len(sizes))
            starts = _held_from(np.array(sizes), groups, section.validation_fraction)
        if chat and ((starts > 0) & (starts < sizes)).any():
            raise ValueError(
                f"There are {len(sizes)} conversations, too few to hold out whole ones. Add some, or lower "
                f"download.validation_fraction, which is {section.validation_fraction:g}."
            )
        parts = []
        with writing(folder / "train.parquet") as train, writing(folder / "validation.parquet") as held:
            for path, held_out in ((train, False), (held, True)):
                rows = _split(_read(spool), sizes, starts)
                parts.append(_write(((name, text) for name, text, part in rows if part is held_out), path, chat))
            check_held(section, parts[1].characters)
    return Written(parts[0], parts[1])


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """The rows (document, text) of a corpus file, in order, with one row group in memory at a time; of conversations,
    what is said in them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No text at {path}. Run `dvc repro download`.")
    if not conversations.has_conversations(path):
        return _read(path)
    return ((name, conversations.plain(each)) for name, each in conversations.read_conversations(path))


def read_scored(path: Path) -> Iterator[tuple[str, str]]:
    """The rows of a corpus file; of conversations, only the answers: the text that bits per byte are about."""
    if not conversations.has_conversations(path):
        return read_rows(path)
    return ((name, conversations.answers_of(each)) for name, each in conversations.read_conversations(path))


def cut(chunks: Iterable[str], limit: int = ROW_BYTES) -> Iterator[str]:
    """A text in chunks → rows of at most `limit` ≥ 4 bytes of UTF-8, independent of the chunks."""
    rest = b""
    for chunk in chunks:
        rest, start = rest + chunk.encode(), 0
        while len(rest) - start > limit:
            end = _row_end(rest, start, limit)
            yield rest[start:end].decode()
            start = end
        rest = rest[start:]
    if rest:
        yield rest.decode()


def _row_end(text: bytes, start: int, limit: int) -> int:
    """The end of a row from `start`: after a newline, else before a space, else between two characters."""
    newline = text.rfind(b"\n", start, start + limit)
    if newline >= 0:
        return newline + 1
    space = text.rfind(b" ", start + 1, start + limit)  # before it, because tokenizers join a space to the next word
    if space >= 0:
        return space
    end = start + limit
    while text[end] & 0b1100_0000 == 0b1000_0000:  # a continuation byte
        end -= 1
    return end


def _spooled(
    documents: Iterable[Document],
    chat: bool,
    most: int | None,
    sizes: "array[int]",
    advance: Callable[[int], object],
) -> Iterator[tuple[str, str]]:
    """The rows of the first `most` non-empty documents; appends the characters of each document to `sizes`."""
    for name, document in documents:
        size = 0
        for row in _rows(name, document, chat):
            size += len(row)
            advance(len(row.encode()))
            yield name, row
        if size:
            sizes.append(size)
        if len(sizes) == most:
            return


def _rows(name: str, document: Iterable[str] | Conversation, chat: bool) -> Iterable[str]:
    """The rows of a document; a conversation is one."""
    if isinstance(document, Conversation) is not chat:
        kinds = ("a text", "conversations") if chat else ("a conversation", "texts")
        raise ValueError(f"{name} is {kinds[0]}, and the documents before it are {kinds[1]}. Use one kind only.")
    if not isinstance(document, Conversation):
        return cut(document)
    row = conversations.as_row(document)
    if len(row.encode()) > ROW_BYTES:
        raise ValueError(f"{name} has more than {ROW_BYTES:,} bytes. Cut the conversation, or remove it.")
    return [row]


def held_out_documents(texts: Mapping[str, str], fraction: float) -> set[str]:
    """The names of the documents that `write_corpus` would hold out of these."""
    groups = overlap.near_duplicates(enumerate(texts.values()), len(texts))
    starts = _held_from(np.array([len(text) for text in texts.values()]), groups, fraction)
    return {name for name, start in zip(texts, starts, strict=True) if start == 0}


def _numbered(rows: Rows, sizes: "array[int]") -> Iterator[tuple[int, int, str, str]]:
    """(document number, characters of the document before the row, document, text) of each row."""
    number = before = 0
    for name, text in rows:
        if before == sizes[number]:
            number, before = number + 1, 0
        yield number, before, name, text
        before += len(text)


def _split(rows: Rows, sizes: "array[int]", starts: Sizes) -> Iterator[tuple[str, str, bool]]:
    """(document, text, held out?) of each row; `starts`: each document's first held-out character."""
    for number, before, name, text in _numbered(rows, sizes):
        end = max(0, int(starts[number]) - before)
        yield from ((name, part, held) for part, held in ((text[:end], False), (text[end:], True)) if part)


def _held_from(sizes: Sizes, groups: Sizes, fraction: float) -> Sizes:
    """The first held-out character of each document, (documents,): 0 if all is held out, its size if nothing is.

    groups: of near-duplicates, kept together. If whole groups cannot make up half of `fraction`, whole documents are
    held out; if these cannot either, because nearly all text is one document, the end of the longest.
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

    A group is skipped if more than half of the text would then be held out.
    """
    groups = np.arange(len(sizes)) if groups is None else groups
    characters, total, taken = np.bincount(groups, sizes), int(sizes.sum()), 0
    held = np.zeros(len(characters), dtype=bool)
    for group in groups[np.random.default_rng(SPLIT_SEED).permutation(len(sizes))].tolist():
        if taken >= fraction * total:
            break
        if not held[group] and 2 * (taken + characters[group]) <= total:
            held[group] = True
            taken += int(characters[group])
    return held[groups]


def _write(rows: Rows, where: Path | IO[bytes], chat: bool = False) -> Part:
    """Write rows as parquet, and count them. chat: they are conversations, to be written as such."""
    documents = count = size = characters = 0
    last: str | None = None
    schema = conversations.SCHEMA if chat else SCHEMA
    with pq.ParquetWriter(where, schema, compression="zstd", use_dictionary=["document"]) as file:
        for group in _groups(rows):
            names, texts = [name for name, _ in group], [text for _, text in group]
            messages = [conversations.from_row(row) for row in texts] if chat else []
            file.write_batch(pa.record_batch([names, messages or texts], schema=schema))
            if chat:
                texts = [conversations.plain(each) for each in messages]
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
    """Raise ValueError if a text has fewer than `least` characters."""
    if characters >= least:
        return
    place = {"files": section.url or section.path, "hub": section.dataset}.get(section.source, section.source)
    raise ValueError(
        f"{place} holds {characters:,} characters of text; a model needs {least:,} or more. "
        "Add text, or set download.source to shakespeare."
    )


def check_held(section: config.Download, characters: int) -> None:
    """Raise ValueError if fewer than LEAST_HELD characters would be held out."""
    if characters < LEAST_HELD:
        raise ValueError(
            f"Only {characters} characters would be held out; evaluation needs {LEAST_HELD} or more. Raise "
            f"download.validation_fraction, which is {section.validation_fraction:g}, or add text."
        )
