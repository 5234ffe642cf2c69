"""tinygpt/data/corpus.py: the parquet files, and the split."""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import params
from tinygpt import config
from tinygpt.data import corpus
from tinygpt.files.checksums import sha256

pytestmark = pytest.mark.usefixtures("here")


def section(**changes: object) -> config.Download:
    values = {"source": "files", "path": "own", "url": None, "max_documents": None, "validation_fraction": 0.1}
    return params(**{f"download__{key}": value for key, value in (values | changes).items()}).download


def written(
    documents: Iterable[corpus.Document], **changes: object
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The rows of both parts."""
    corpus.write_corpus(documents, section(**changes), Path("corpus"))
    return parts()


def parts() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    train, validation = (list(corpus.read_rows(Path(f"corpus/{part}.parquet"))) for part in ("train", "validation"))
    return train, validation


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
    train, validation = ("".join(row for _, row in part) for part in written([("book", [text])]))
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert train + validation == text


def test_both_parts_of_a_lone_text_keep_its_name() -> None:
    train, validation = written([("book", ["é😀" * 1000])], validation_fraction=0.25)
    assert train == [("book", "é😀" * 750)]
    assert validation == [("book", "é😀" * 250)]


def test_a_corpus_holds_out_whole_documents_in_their_order() -> None:
    train, validation = written((str(number), [f"document {number:02} " * 40]) for number in range(50))
    assert len(train) + len(validation) == 50
    assert len(validation) == 5
    for part in (train, validation):
        numbers = [int(name) for name, _ in part]
        assert numbers == sorted(numbers)
        assert [text for _, text in part] == [f"document {number:02} " * 40 for number in numbers]


@pytest.mark.parametrize("first", [True, False])
def test_a_book_beside_a_short_note_is_split_at_its_end_as_if_it_were_alone(first: bool) -> None:
    book = ("book", ["".join(f"{number:06d}\n" for number in range(10_000))])
    train, validation = written([book, ("note", ["Read me.\n"])] if first else [("note", ["Read me.\n"]), book])
    assert [(name, len(text)) for name, text in validation] == [("book", 7000)]
    assert [(name, len(text)) for name, text in train] == [("book", 63_000), ("note", 9)][:: 1 if first else -1]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.floats(0.001, 0.5))
def test_about_the_share_asked_for_is_held_out_and_half_of_the_text_is_always_trained_on(
    sizes: list[int], share: float
) -> None:
    starts = corpus._held_from(np.array(sizes), np.arange(len(sizes)), share)
    held = sum(sizes) - starts.sum()
    assert held + 1 > min(share * sum(sizes) / 2, share * max(sizes))
    assert held <= max(sum(sizes) / 2, share * max(sizes) + 1)


def test_two_halves_are_not_both_held_out() -> None:
    train, validation = written([("a", ["a" * 5000]), ("b", ["b" * 4990]), ("c", ["c" * 10])], validation_fraction=0.5)
    assert sum(len(text) for _, text in train) >= 5000
    assert sum(len(text) for _, text in validation) >= 2500


def story(number: int) -> str:
    generator = random.Random(number)
    return f"Story {number}. " + " ".join("".join(generator.choices("abcdefgh", k=5)) for _ in range(60))


def test_near_duplicates_are_held_out_together_or_not_at_all() -> None:
    def like(number: int) -> str:
        return story(number).replace("a", "A", 5)

    stories = [(str(number), [text]) for number in range(60) for text in (story(number), like(number))]
    train, validation = written((f"{name}/{place}", text) for place, (name, text) in enumerate(stories))
    held = {name.split("/")[0] for name, _ in validation}
    assert not held & {name.split("/")[0] for name, _ in train}
    assert len(validation) == 2 * len(held) == 12


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_without_duplicates_documents_are_held_out_in_the_order_that_they_always_were(share: float) -> None:
    sizes = np.array([len(story(number)) for number in range(100)])
    order = np.random.default_rng(0).permutation(100)
    expected = order[: np.searchsorted(np.cumsum(sizes[order]), share * sizes.sum()) + 1]
    _, validation = written(((str(number), [story(number)]) for number in range(100)), validation_fraction=share)
    assert [int(name) for name, _ in validation] == sorted(expected)


def test_where_all_are_near_duplicates_whole_documents_are_held_out_as_ever() -> None:
    notice = story(-1)
    train, validation = written((str(number), [notice, story(number)]) for number in range(20))
    assert (len(train), len(validation)) == (18, 2)


def test_a_document_of_many_rows_stays_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.cut, "__defaults__", (100,))
    monkeypatch.setattr(corpus, "GROUP_ROWS", 3)
    train, validation = written((name, [f"{name} {name}\n" * 100]) for name in "abcdef")
    assert {name for name, _ in train} | {name for name, _ in validation} == set("abcdef")
    assert not {name for name, _ in train} & {name for name, _ in validation}
    assert all(len(text) <= 100 for _, text in train)
    assert "".join(text for name, text in validation) == f"{validation[0][0]} {validation[0][0]}\n" * 100


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.floats(0.001, 0.5))
def test_each_part_gets_a_document_and_most_text_is_trained_on(sizes: list[int], share: float) -> None:
    held = corpus._held_out(np.array(sizes), share)
    assert 0 < held.sum() < len(sizes)
    assert not any(held[number] for number, size in enumerate(sizes) if 2 * size > sum(sizes))


def test_what_is_held_out_is_spread_over_the_documents_and_always_the_same() -> None:
    first, again = (np.flatnonzero(corpus._held_out(np.full(100, 9), 0.1)) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(first) == 10
    assert first.min() < 30
    assert first.max() > 70


def test_the_same_input_gives_the_same_bytes() -> None:
    documents = [("a", ["Once\n"] * 500), ("b", ["upon\n" * 400]), ("c", ["a time\n" * 300])]
    digests = []
    for name in ("one", "two"):
        corpus.write_corpus(documents, section(), Path(name))
        digests.append([sha256(path) for path in sorted(Path(name).iterdir())])
    assert digests[0] == digests[1]
    assert [path.name for path in sorted(Path("one").iterdir())] == ["train.parquet", "validation.parquet"]


def test_what_is_counted_is_what_is_written() -> None:
    documents = [("a", ["é\n" * 1000]), ("b", ["e\n" * 2000])]
    heard: list[int] = []
    done = corpus.write_corpus(documents, section(), Path("corpus"), heard.append)
    assert done.train == corpus.Part(documents=1, rows=1, bytes=4000, characters=4000)
    assert done.validation == corpus.Part(documents=1, rows=1, bytes=3000, characters=2000)
    assert sum(heard) == 7000


def test_a_failed_run_leaves_the_last_corpus_alone() -> None:
    def failing() -> Iterator[corpus.Document]:
        yield "a", ["There was a king\n" * 100]
        raise ValueError("b.jsonl, line 1 is not JSON")

    before = written([("a", ["Once upon a time\n" * 100])])
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        written(failing())
    assert parts() == before
    assert len(list(Path("corpus").iterdir())) == 2


@pytest.mark.parametrize(("text", "found"), [("short", "holds 5 characters"), ("", "holds 0 characters")])
def test_too_little_text_says_how_much_there_is_and_what_to_do(text: str, found: str) -> None:
    with pytest.raises(ValueError, match=rf"own {found} of text; a model needs 1,000 .* Add text"):
        written([("a", [text])])


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Raise download\.validation_fraction"):
        written([("a", ["x" * 1000])], validation_fraction=1e-17)


def test_a_held_out_part_too_small_to_judge_by_is_refused_before_anything_is_written() -> None:
    with pytest.raises(
        ValueError, match=r"Only 20 characters would be held out; evaluation needs 100 or more. Raise .*is 0.01, or add"
    ):
        written([("a", ["x" * 2000])], validation_fraction=0.01)
    assert list(Path("corpus").iterdir()) == []


def test_missing_text_names_the_stage_to_run() -> None:
    with pytest.raises(FileNotFoundError, match=r"No text at train.parquet. Run `dvc repro download`."):
        corpus.read_rows(Path("train.parquet"))


def test_documents_are_limited_and_empty_ones_do_not_count() -> None:
    documents = [(str(number), [letter * 600]) for number, letter in enumerate(["a", "", "b", "c"], 1)]
    train, validation = written(documents, max_documents=2)
    assert sorted(name for name, _ in train + validation) == ["1", "3"]


def test_documents_beyond_the_limit_are_never_asked_for() -> None:
    def endless() -> Iterator[corpus.Document]:
        for number in itertools.count():
            assert number < 4
            yield str(number), [f"story {number} " * 100]

    done = corpus.write_corpus(endless(), section(max_documents=4), Path("corpus"))
    assert done.train.documents + done.validation.documents == 4
