"""Records of .jsonl, .csv, .tsv and .parquet files: `for number, record in READERS[kind](path, column)`.

A record is a dict of columns. Its number is that of its row, or of the line where it ends. `contents` extracts the text
or the conversation of records, also of hub datasets. Files are parsed strictly, and an error names file and line: a
lenient CSV reader merges hundreds of rows into one if a quote is never closed.
"""

import csv
import functools
import itertools
import json
import math
import re
import reprlib
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tinygpt.data.conversations import Conversation, messages, unix_line_ends
from tinygpt.data.sources.encodings import not_text, open_text

LARGEST_FIELD = 2**28  # characters of a .csv field; a longer one means an unclosed quote
Records = Iterable[tuple[int, dict[str, Any]]]


def contents(
    records: Records, column: str, place: Callable[[int], str], tell: Callable[[str], object]
) -> Iterator[tuple[int, list[str] | Conversation]]:
    """The number of each record, and its text (one chunk, with \\n as line ends) or its messages; `tell` is called for
    each null.

    place: the number of a record → its name in an error.

    Raises ValueError if the column is missing, is neither text nor messages, or is null in all records.
    """
    number = nulls = read = 0
    for number, record in records:
        if column not in record and not nulls + read:
            raise ValueError(f"{place(number)} has no column {column!r}. {_hint(list(record))}")
        text = record.get(column)
        if text is None or (isinstance(text, float) and math.isnan(text)):  # pandas writes NaN for null
            nulls += 1
            tell(f"row: null in {column!r}")
            continue
        read += 1
        if isinstance(text, list):
            yield number, messages(text, place(number))
        else:
            yield number, [_plain(text, column, place(number))]
    if nulls and not read:
        raise ValueError(
            f"{column!r} is null in all {nulls:,} rows (the last is {place(number)}). Set download.text_column to a "
            "column that holds text."
        )


def _hint(names: list[Any]) -> str:
    """The next step if a column is missing, truncated."""
    shown = [f"{' '.join(str(name).split()):.40}" for name in names[:12]]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"Set download.text_column to one of: {', '.join(shown)}{more}."


def _plain(text: Any, column: str, place: str) -> str:
    """The text of a record. Raises ValueError if it is not text."""
    try:
        text = text.decode() if isinstance(text, bytes) else text  # some programs write text to Parquet as bytes
        if isinstance(text, str):
            text.encode()
            return unix_line_ends(text)
    except UnicodeDecodeError as problem:
        raise ValueError(f"{place}: {column!r} is not UTF-8 (byte {problem.start}). Correct or remove it.") from None
    except UnicodeEncodeError:
        raise ValueError(f"{place} has a lone surrogate (half a character). Correct or remove it.") from None
    raise ValueError(
        f"{place}: {column!r} is {reprlib.repr(text)}, which is not text. Correct or remove it, or set "
        "download.text_column to another column."
    )


def _jsonl(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        for count, (number, line) in enumerate(lines):
            try:
                record = json.loads(line, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as problem:
                cut = isinstance(problem, json.JSONDecodeError) and problem.pos >= len(line.rstrip())
                if not count and (line.startswith("[") or (line.startswith("{") and cut)):
                    raise _one_value(path, line[0]) from None
                raise ValueError(f"{path}, line {number} is not JSON ({problem}). Correct or remove it.") from None
            if isinstance(record, list) and not count:
                raise _one_value(path, "[")
            if not isinstance(record, dict):
                raise ValueError(f'{path}, line {number} is not an object such as {{"{column}": "…"}}. Correct it.')
            yield number, record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a duplicate key, of which json would silently keep the last."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return record


def _one_value(path: Path, start: str) -> ValueError:
    what, how = ("an array", "'.[]'") if start == "[" else ("spread over several lines", ".")
    old, new = (shlex.quote(str(name)) for name in (path, f"{path.with_suffix('')}.lines.jsonl"))
    return ValueError(
        f"{path} is JSON, but {what}; a .jsonl file has an object on each line. Convert it: `jq -c {how} {old} > "
        f"{new}`; then remove the old file."
    )


def _csv(path: Path, column: str, delimiters: str = ",;\t|") -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file with a header, with the header's delimiter: the first of `delimiters` that fits."""
    with open_text(path, newline="") as file:
        before, head, delimiter = _head(file, column, delimiters)
        rows = _rows(path, itertools.chain([head] if head else [], file), delimiter, before)
        names = [name.strip() for name in next(rows, (0, []))[1]]
        if names and column not in names:
            raise ValueError(
                f"{path}, line {before + 1} has no column {column!r}. {_hint(names)} If that line is already text, "
                "add a line with the column names above it."
            )
        if names.count(column) > 1:
            raise _twice(path, column)
        for number, row in rows:
            if len(row) != len(names):
                raise ValueError(
                    f"{path}, line {number} has {len(row)} field(s), but the header has {len(names)}. Quote fields "
                    f"that contain {delimiter!r}, or correct the line."
                )
            yield number, dict(zip(names, row, strict=True))


def _twice(path: Path, column: str) -> ValueError:
    return ValueError(f"{path} has several columns {column!r}. Rename all but the one that holds the text.")


def _head(file: IO[str], column: str, delimiters: str) -> tuple[int, str, str]:
    """The number of lines before the header, the header, and the delimiter.

    The delimiter is the one of Excel's line `sep=;`, or the first of `delimiters` that yields the column.
    """
    before = 0
    for line in file:
        if declared := re.fullmatch(r'"?sep=(.)"?\s*', line):
            return before + 1, next(file, ""), declared[1]
        if line.strip():
            fitting = (sep for sep in delimiters if column in [name.strip(' \r\n"') for name in line.split(sep)])
            return before, line, next(fitting, delimiters[0])
        before += 1
    return before, "", delimiters[0]


def _rows(path: Path, lines: Iterable[str], delimiter: str, number: int) -> Iterator[tuple[int, list[str]]]:
    """The non-blank rows of a CSV file, each with the line where it ends; `number`: the lines before the first row.

    Raises ValueError for a quote that is never closed, or is misplaced.
    """
    csv.field_size_limit(LARGEST_FIELD)
    raw: list[str] = []  # the lines of this row
    field = f'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{re.escape(delimiter)}\r\n]*+)'
    whole = re.compile(f"{field}(?:{re.escape(delimiter)}{field})*+[\r\n]*")
    reader = csv.reader(_recorded(lines, raw), delimiter=delimiter, strict=True)
    while True:
        raw.clear()
        problem = None
        try:
            row = next(reader, None)
        except csv.Error as error:
            row, problem = [], error
        if row is None:
            return
        text, first, number = "".join(raw), number + 1, number + len(raw)
        if "\0" in text:
            raise not_text(path)
        if problem or not whole.fullmatch(text):
            raise ValueError(
                f'{path}, line {first}: the row that starts here has a quote (") that is never closed, or that stands '
                f"inside a field (by line {number}). Quote a field that contains quotes, and double those: "
                '"say ""hi""".'
            )
        if text.strip():
            yield number, row


def _recorded(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    """The lines, each also appended to `seen` when read."""
    for line in lines:
        seen.append(line)
        yield line


def _parquet(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if names.count(column) > 1:
                raise _twice(path, column)
            for batch in file.iter_batches(256, columns=[column] if column in names else None):  # all, for the message
                for row in _dicts(batch):
                    number += 1
                    yield number, row
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{path}, row {number + 1}: {column!r} is not UTF-8 (byte {problem.start}). Write the file again "
            "with that row corrected, or without it."
        ) from None
    except (pa.ArrowException, OSError) as problem:
        raise ValueError(f"{path} cannot be read as Parquet ({problem}). Replace it.") from None


def _dicts(batch: pa.RecordBatch) -> Iterable[dict[str, Any]]:
    """The rows of a batch; lazily if one cannot be decoded, so that the rows before it are read."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return (batch.slice(row, 1).to_pylist()[0] for row in range(batch.num_rows))


READERS: dict[str, Callable[[Path, str], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": functools.partial(_csv, delimiters="\t,;|"),
    ".parquet": _parquet,
}
