"""tinygpt/data/sources/documents.py: where text comes from. No test uses the network."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import download
from tests.conftest import params
from tests.data.sources.test_download_cache import opener
from tinygpt import config
from tinygpt.data.conversations import Conversation
from tinygpt.data.sources import documents, download_cache, pypi, shakespeare
from tinygpt.files.paths import Paths

pytestmark = pytest.mark.usefixtures("here")


def section(**changes: object) -> config.Download:
    values = {"source": "files", "path": "own", "pattern": "**/*", "url": None, "sha256": None, "text_column": "text"}
    return params(**{f"download__{key}": value for key, value in (values | changes).items()}).download


def own(**texts: str | bytes) -> None:
    """Files in own/; `a__txt` is named a.txt."""
    Path("own").mkdir(exist_ok=True)
    for name, text in texts.items():
        data = text if isinstance(text, bytes) else text.encode()
        Path("own", name.replace("__", ".")).write_bytes(data)


def texts(**changes: object) -> dict[str, str]:
    return {name: joined(content) for name, content in documents.documents(section(**changes))[0]}


def joined(content: Iterable[str] | Conversation) -> str:
    """The text of a document, which is not a conversation."""
    assert not isinstance(content, Conversation)
    return "".join(content)


# One's own files


def test_text_files_are_a_document_each_with_plain_line_ends() -> None:
    own(a__txt=b"\xef\xbb\xbfOne\r\ntwo\rthree\n" + b"a" * 600, b__md="b" * 600, c__txt="\ufeff")
    assert texts() == {"a": "One\ntwo\nthree\n" + "a" * 600, "b": "b" * 600, "c": ""}


def test_names_are_unique_paths() -> None:
    own(a__txt="1" * 600, a__md="2" * 600)
    assert list(texts()) == ["a.md", "a.txt"]
    Path("own/sub").mkdir()
    Path("own/a.md").rename("own/sub/a.md")
    assert list(texts()) == ["a", "sub/a"]


def test_a_missing_empty_or_strange_source_says_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no own\. Put a \.txt file there, or set download.source"):
        documents.check_source(section())
    own(empty__txt="")
    with pytest.raises(FileNotFoundError, match=r"There is no text in own\. Its only file is not read: 1 empty\."):
        documents.check_source(section())
    own(photo__jpg="x")
    with pytest.raises(FileNotFoundError, match=r"own/photo.jpg is not read: \.jpg\. TinyGPT reads \.txt"):
        documents.check_source(section(path="own/photo.jpg"))
    own(a__txt="x")
    documents.check_source(section())


def test_text_that_an_experiments_copy_lacks_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(a__txt="in the workspace" * 100, b__txt="untracked" * 100)
    copy = here / ".dvc/tmp/exps/temporary"
    (copy / "own").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(here))
    monkeypatch.chdir(copy)
    with pytest.raises(FileNotFoundError, match=r"own/a.txt is not in this experiment's copy.*`git add own`"):
        texts()
    own(a__txt="in the copy" * 100)
    with pytest.raises(FileNotFoundError, match=r"own/b.txt is not in this experiment's copy"):
        texts()
    own(b__txt="also in the copy" * 100)
    assert list(texts().values()) == ["in the copy" * 100, "also in the copy" * 100]


# Addresses


def test_an_address_becomes_a_document_named_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = download_cache.fetch
    monkeypatch.setattr(
        download_cache, "fetch", lambda url, sha256, advance: fetch(url, sha256, opener(b"word " * 300), advance)
    )
    heard: list[int] = []
    found, digest = documents.documents(section(url="https://a.org/books/my%20book.txt?x=1"), heard.append)
    assert sum(heard) == 1500
    assert digest == hashlib.sha256(b"word " * 300).hexdigest()
    assert [(name, joined(content)) for name, content in found] == [("my book", "word " * 300)]


def test_an_address_of_records_is_read_as_a_file_of_that_name_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, data = download_cache.fetch, b"id\ttext\n1\tone\n"
    monkeypatch.setattr(download_cache, "fetch", lambda url, sha256, advance: fetch(url, sha256, opener(data), advance))
    for name in ("x.csv", "x.TSV"):
        found, _ = documents.documents(section(url=f"https://a.org/{name}"))
        assert [(name, joined(content)) for name, content in found] == [(f"{name}/2", "one")]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            b"caf\xe9 noir",
            r"is not UTF-8 text \(byte 3\)\. Save it yourself as FILE\. It may be cp1252 .*FILE > FILE.txt`",
        ),
        (b"%PDF-1.7", r"is a PDF, not text\. Save it yourself as FILE\. Extract its text: `pdftotext FILE`"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of git-lfs, .*the site's download button"),
    ],
)
def test_an_address_that_gives_no_utf8_is_told_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch, data: bytes, sentence: str
) -> None:
    fetch = download_cache.fetch
    monkeypatch.setattr(download_cache, "fetch", lambda url, sha256, advance: fetch(url, sha256, opener(data), advance))
    found, _ = documents.documents(section(url="https://a.org/book.txt"))
    with pytest.raises(ValueError, match=f"What download.url gave {sentence}"):
        [joined(content) for _, content in found]


def test_the_stage_says_what_it_skipped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.dumps({"text": text}) for text in [*("word " * 200,) * 9, None, None]]
    own(a__jsonl="\n".join(rows), b__json="[]")
    download.main(params(download__source="files", download__path="own"), Paths(here))
    skipped = "skipped 2 rows: null in 'text'; 1 file: .json (`jq -c '.[]' x.json > x.jsonl`"
    assert skipped in capsys.readouterr().out


# Shakespeare


def test_shakespeares_plays_are_a_document_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "check", lambda wheel: None)
    plays_read = (lambda: iter([("romeo", ["But, soft!"])]), shakespeare.WHEEL)
    monkeypatch.setitem(documents.WHEELS, "shakespeare", plays_read)
    found, digest = documents.documents(section(source="shakespeare"))
    assert (list(found), digest) == ([("romeo", ["But, soft!"])], shakespeare.WHEEL.sha256)


def test_missing_pip_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Run `python -m ensurepip`"):
        documents.check_source(section(source="shakespeare"))


# The hub


def hub(text: str = "text", **changes: object) -> config.Download:
    Path("stories/data").mkdir(parents=True, exist_ok=True)
    rows = {text: [f"story {number} " * 100 for number in range(9)], "id": list(range(9))}
    pq.write_table(pa.table(rows), "stories/data/train-00000-of-00001.parquet")
    return section(source="hub", dataset="./stories", **changes)


def test_a_local_folder_in_the_hubs_layout_is_a_dataset(capfd: pytest.CaptureFixture[str]) -> None:
    found, digest = documents.documents(hub())
    rows = [(name, joined(content)) for name, content in itertools.islice(found, 4)]
    assert rows == [(f"stories/{number + 1}", f"story {number} " * 100) for number in range(4)]
    assert digest is None
    assert len(texts(source="hub", dataset="./stories")) == 9
    assert capfd.readouterr() == ("", "")


def test_a_dataset_without_the_column_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no column 'text'\. .* one of: body, id"):
        list(documents.documents(hub("body"))[0])


def test_a_missing_dataset_folder_is_not_looked_for_on_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder '\./stories'"):
        documents.check_source(section(source="hub", dataset="./stories"))
    (here / "data/stories").mkdir(parents=True)
    (here / "copy").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(here))
    monkeypatch.chdir(here / "copy")
    with pytest.raises(FileNotFoundError, match="git does not track it"):
        documents.check_source(section(source="hub", dataset="data/stories"))
