"""The documents of any source: `found, digest = documents(params.download)`.

The sources are Shakespeare's plays, SymPy's documentation of physics, a mixture of conversations, users' own files (or
a web address), and datasets of the Hugging Face hub. A document is a name and a text in chunks: a .txt or .md file, or
a record of a .jsonl, .csv, .tsv or .parquet file; or it is a conversation: a record with messages. Documents are read
lazily, so memory stays constant. `check_source` finds problems before any work and without the network.

Left out: cleaning, deduplication, licences, and a dataset's own validation split (all text comes from its train split,
so that one splitting rule applies to every source).
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tinygpt import config
from tinygpt.data.conversations import Conversation
from tinygpt.data.sources import (
    chat_mixture,
    download_cache,
    encodings,
    hf_datasets,
    pypi,
    records,
    shakespeare,
    sympy_docs,
    text_files,
)
from tinygpt.files import paths
from tinygpt.files.text import check_fetched

Document = tuple[str, Iterable[str] | Conversation]  # its name, and its text in chunks or its messages
WHEELS: dict[str, tuple[Callable[[], Iterable[Document]], pypi.Wheel]] = {  # sources inside a Python package
    "shakespeare": (shakespeare.plays, shakespeare.WHEEL),
    "physics": (sympy_docs.texts, sympy_docs.WHEEL),
}


def documents(
    section: config.Download,
    advance: Callable[[int], object] = lambda size: None,
    tell: Callable[[str], object] = lambda what: None,
) -> tuple[Iterable[Document], str | None]:
    """The documents, and the SHA-256 of the download (None without one).

    `advance` is called with the bytes downloaded, `tell` with the reason for each skipped file or row.

    Raises ValueError, FileNotFoundError or ConnectionError; reading the documents may raise them, too.
    """
    check_source(section)
    if section.source in WHEELS:
        read, wheel = WHEELS[section.source]
        return read(), wheel.sha256
    if section.source == "chat":
        return chat_mixture.conversations(section), shakespeare.WHEEL.sha256
    if section.source == "hub":
        return _hub(section, advance, tell), None
    if section.url is None:
        return _own(section, tell), None
    path, digest = download_cache.fetch(section.url, section.sha256, advance=advance)
    name = PurePosixPath(unquote(urlsplit(section.url).path))  # only a name; no such path is opened
    kind = text_files.kind(name)
    return _in_file(name.name if kind in records.READERS else name.stem, path, kind, section, tell), digest


def check_source(section: config.Download) -> int | None:
    """Check the source before any work and without the network; raises like `documents`.

    Returns the bytes of the user's own files, or None for other sources. Reads only the beginning of each file.
    """
    if section.source in WHEELS:
        pypi.check(WHEELS[section.source][1])
    if section.source == "chat":
        pypi.check(shakespeare.WHEEL)
    if section.source == "hub":
        hf_datasets.check(section)
    if section.source != "files" or section.url is not None:
        return None
    found, _ = _own_files(section)
    for name, path in found.items():
        for _, content in itertools.islice(_in_file(name, path, text_files.kind(path), section), 100):
            next(iter(content), None)
    return sum(path.stat().st_size for path in found.values())


def _own(section: config.Download, tell: Callable[[str], object]) -> Iterator[Document]:
    """The documents of the user's own files; names keep their suffix if they would not be unique without it."""
    found, skipped = _own_files(section)
    for reason in skipped.elements():
        tell(f"file: {reason}")
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in found}
    unique = len(set(stems.values())) == len(stems)
    for name, path in found.items():
        kind = text_files.kind(path)
        yield from _in_file(name if kind in records.READERS or not unique else stems[name], path, kind, section, tell)


def _own_files(section: config.Download) -> tuple[dict[str, Path], Counter[str]]:
    """`text_files.listed` of download.path, relative to the working directory, as DVC sees it."""
    root = Path(section.path)
    here, skipped = text_files.listed(root, section.pattern)
    home = text_files.listed(paths.home() / root, section.pattern)[0] if paths.home() != Path() else {}
    missing = [name for name in home if name not in here]
    if missing:  # in a temporary copy; with a file read from home, DVC's run cache would return results of an old text
        raise FileNotFoundError(
            f"{root}{'' if root.suffix else '/' + missing[0]} is not in this experiment's copy, because git does not "
            f"track it. Run `git add {root}` (no commit is needed) and queue it again, or run it in the workspace."
        )
    if not here:
        what = f" (download.pattern is {section.pattern!r})" if section.pattern != "**/*" and root.is_dir() else ""
        raise FileNotFoundError(
            f"{text_files.nothing_in(root, skipped)}{what} Put a .txt file there, or set download.source to "
            "shakespeare."
        )
    return here, skipped


def _in_file(
    name: str, path: Path, kind: str, section: config.Download, tell: Callable[[str], object] = lambda what: None
) -> Iterator[Document]:
    """The documents of one file: one per record, or the whole file."""
    if kind not in records.READERS:
        yield name, encodings.chunks(path)
        return
    check_fetched(path)
    if kind != ".parquet":
        encodings.check_beginning(path)
    unit, column = "row" if kind == ".parquet" else "line", section.text_column
    found = records.READERS[kind](path, column)
    try:
        for number, content in records.contents(found, column, lambda number: f"{path}, {unit} {number}", tell):
            yield f"{name}/{number}", content
    except UnicodeDecodeError:
        raise encodings.not_text(path) from None


def _hub(
    section: config.Download, advance: Callable[[int], object], tell: Callable[[str], object]
) -> Iterator[Document]:
    """The documents of a dataset, one per row; its first file is fetched here, before iteration."""
    name, rows = Path(section.dataset).name, enumerate(hf_datasets.rows(section, advance), 1)
    found = records.contents(rows, section.text_column, lambda number: f"Row {number} of {section.dataset}", tell)
    return ((f"{name}/{number}", content) for number, content in found)
