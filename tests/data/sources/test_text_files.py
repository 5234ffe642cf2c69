"""tinygpt/data/sources/text_files.py: which of a person's files are read, and what is said of the others."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.sources.test_documents import own, section, texts
from tinygpt.data.sources import documents, text_files
from tinygpt.files.text import write_text

RUN = subprocess.run
pytestmark = pytest.mark.usefixtures("here")


def test_only_visible_text_counts_and_a_link_to_a_file_is_read_wherever_that_lies(here: Path) -> None:
    own(a__txt="a" * 600, b__TXT="b" * 600, __hidden__txt="c" * 600, image__png="d" * 600, empty__txt="")
    for folder in ("own/.git", "own/x.txt"):
        Path(folder).mkdir()
        Path(folder, "e.txt").write_text("e" * 600)
    (here / "outside.txt").write_text("f" * 600)
    Path("own/link.txt").symlink_to(here / "outside.txt")
    Path("own/inner.txt").symlink_to("a.txt")
    Path("own/space.txt ").write_text("g" * 600)
    assert list(texts()) == ["a", "b", "inner", "link", "space", "x.txt/e"]
    assert texts()["link"] == "f" * 600
    assert list(texts(pattern="[ab]*")) == ["a", "b"]


def test_a_link_that_cannot_be_followed_is_refused(here: Path) -> None:
    own(a__txt="a" * 600)
    for target in ("/nowhere/book.txt", "link.txt"):
        Path("own/link.txt").symlink_to(target)
        with pytest.raises(
            FileNotFoundError, match=rf"own/link\.txt is a link to {target}, which does not exist or links back"
        ):
            documents.check_source(section())
        with pytest.raises(FileNotFoundError, match=r"own/link\.txt is a link to"):
            documents.check_source(section(path="own/link.txt"))
        Path("own/link.txt").unlink()
    write_text(here / "books/b.txt", "b" * 600)
    Path("own/books").symlink_to(here / "books")
    with pytest.raises(
        ValueError, match=r"own/books is a link to a folder\. DVC does not look inside.*Link its"
    ) as told:
        documents.check_source(section())
    RUN(str(told.value).split("`")[1], shell=True, check=True)
    assert texts() == {"a": "a" * 600, "books/b": "b" * 600}
    for target in (".", str(here)):
        Path("own/loop").symlink_to(target)
        with pytest.raises(ValueError, match=r"own/loop is a link to a folder that contains it\. Remove the link"):
            documents.check_source(section())
        Path("own/loop").unlink()


def test_a_name_that_is_not_utf8_is_refused_since_dvc_stops_at_it() -> None:
    own(a__txt="a" * 600)
    with open(b"own/caf\xe9.txt", "w") as file:  # noqa: PTH123 - a name in bytes
        file.write("x")
    with pytest.raises(ValueError, match=r"own/caf\?\.txt is not UTF-8 .*`mv own/caf\?\.txt own/…`") as told:
        documents.check_source(section())
    assert str(told.value).encode()


def test_text_without_an_ending_is_read_and_what_is_no_text_is_not() -> None:
    own(README="a" * 600, program=b"\x7fELF\2\1\1", latin=b"caf\xe9", log="\x1b[1mbold\x1b[0m\n", packed=b"%PDF-1.7")
    assert list(texts()) == ["README", "log"]
    assert list(texts(path="own/README")) == ["README"]
    with pytest.raises(ValueError, match=r"own/latin is not UTF-8 text \(byte 3\)"):
        texts(path="own/latin")


def test_what_is_not_read_is_counted_with_the_reason() -> None:
    own(
        a__json="[]", b__json="[]", c__txt__gz="x", d__csv="", __hidden__txt="x", __gitkeep="", e=b"\0", f__md="x" * 600
    )
    os.mkfifo("own/pipe.txt")
    left_out: list[str] = []
    assert list(documents.documents(section(), tell=left_out.append)[0])
    assert sorted(left_out) == [
        "file: .gz (unpack it)",
        *2 * ["file: .json (`jq -c '.[]' x.json > x.jsonl` makes records of an array)"],
        "file: empty",
        "file: hidden",
        "file: not a regular file",
        "file: without an extension, and not UTF-8 text",
    ]
    Path("own/f.md").unlink()
    sentence = (
        r"There is no text in own\. Its 7 files are not read: 2 \.json \(`jq .*; 1 \.gz \(unpack it\); 1 empty; .*"
        r"TinyGPT reads \.txt \.md \.jsonl \.csv \.tsv \.parquet\. Put a \.txt file there"
    )
    with pytest.raises(FileNotFoundError, match=sentence):
        documents.check_source(section())
    own(f__md="x")
    with pytest.raises(FileNotFoundError, match=r"1 outside download\.pattern.*\(download\.pattern is 'x\*'\)"):
        documents.check_source(section(pattern="x*"))


def test_a_folder_that_is_closed_to_the_reader_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    own(a__txt="a" * 600)
    Path("own/closed").mkdir()
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError):
        documents.check_source(section())


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            "data",
            "which contains data/corpus, an output of dvc.yaml; DVC refuses that. Put your text into a folder of",
        ),
        (".", "which contains data/corpus"),
        ("/", "which contains data/corpus"),
        ("..", "which contains data/corpus"),
        ("data/corpus", "which is, or is inside, data/corpus"),
        ("./data/own/../corpus/train.parquet", "which is, or is inside, data/corpus"),
        ("data/evaluation", "which contains data/evaluation/figures"),
        ("data/training/metrics.json", "which is, or is inside, data/training/metrics.json"),
        ("finetune", "which contains finetune/data/corpus, an output of finetune/dvc.yaml"),
        ("chat", "which contains chat/data/corpus, an output of chat/dvc.yaml"),
        ("benchmark", "which contains benchmark/results"),
    ],
)
def test_a_path_that_overlaps_with_what_a_pipeline_makes_is_refused(here: Path, path: str, sentence: str) -> None:
    for name in ("dvc.yaml", "finetune/dvc.yaml", "chat/dvc.yaml", "benchmark/dvc.yaml"):
        write_text(here / name, (ROOT / name).read_text())
    (here / "data").mkdir()
    (here / "data/corpus").symlink_to(here / "cache")  # as DVC's cache.type: symlink has it
    with pytest.raises(ValueError, match=sentence):
        text_files.check_apart(path, Path())


def test_a_path_beside_what_a_pipeline_makes_or_in_anothers_is_not_refused(here: Path) -> None:
    for name in ("dvc.yaml", "finetune/dvc.yaml"):
        write_text(here / name, (ROOT / name).read_text())
    for path in ("data/own", "data/own/", "data/corpora", "elsewhere/book.txt", "finetune/data/corpus", "/data"):
        text_files.check_apart(path, Path())
    text_files.check_apart("data/corpus/train.parquet", Path("finetune"))
    with pytest.raises(ValueError, match="is inside, finetune/data/corpus"):
        text_files.check_apart("finetune/data/corpus", Path("finetune"))


def test_a_stage_that_is_repeated_for_items_makes_its_outputs_too(here: Path) -> None:
    repeated = "{foreach: [a], do: {cmd: make, wdir: data, outs: [made: {cache: false}]}}"
    write_text(here / "dvc.yaml", f"stages:\n  mine: {{cmd: echo hi}}\n  also: {repeated}\n")
    with pytest.raises(ValueError, match=r"download\.path is 'data/made', which is, or is inside, data/made"):
        text_files.check_apart("data/made", Path())
    text_files.check_apart("data/own", Path())


@pytest.mark.parametrize("pattern", ["../*", "/etc/*"])
def test_a_pattern_cannot_leave_the_folder(here: Path, pattern: str) -> None:
    own()
    (here / "outside.txt").write_text("f" * 2000)
    with pytest.raises((ValueError, FileNotFoundError), match=r"download\.pattern"):
        texts(pattern=pattern)
