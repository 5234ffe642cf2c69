"""What is called a copy stands in the training text, and near-duplicates are found together (data/overlap.py)."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.data import overlap
from tinygpt.data.overlap import COPY, SHINGLE, copied, hashes, near_duplicates, verdict

WORDS = [f"{a}{b}{c}" for a in ("Ro", "Ju", "mer", "Ty", "sam") for b in ("me", "li", "cu", "ba") for c in "olt"]


def prose(seed: int, words: int = 200) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def groups(*texts: str) -> list[set[int]]:
    found = near_duplicates(enumerate(texts), len(texts)).tolist()
    return [{number for number, group in enumerate(found) if group == one} for one in dict.fromkeys(found)]


@given(st.text(max_size=60), st.integers(1, 40), st.data())
def test_runs_of_characters_have_one_hash_where_they_are_the_same(text: str, width: int, data: st.DataObject) -> None:
    double = text + data.draw(st.text(max_size=5)) + text
    found = hashes(double, width).tolist()
    runs = [double[place : place + width] for place in range(len(double) - width + 1)]
    assert len(found) == len(runs)
    assert len(set(found)) == len(set(runs)) == len(set(zip(found, runs, strict=True)))


def by_definition(train: list[str], text: str) -> int:
    """The characters of a text in passages of COPY characters that stand in a training document."""
    inside = {
        place
        for start in range(len(text) - COPY + 1)
        if any(text[start : start + COPY] in document for document in train)
        for place in range(start, start + COPY)
    }
    return len(inside)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_copied_is_what_the_definition_says(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "BLOCK", 150)  # so that passages lie across blocks and rows
    generator = random.Random(seed)
    train = [prose(generator.randrange(99), 40) for _ in range(3)]
    held = [train[0][5:70] + prose(100, 9) + train[1][30:79] + train[2][-80:], prose(101, 30), train[1], train[2][:20]]
    rows = [(str(n), text[at : at + 60]) for n, text in enumerate(train) for at in range(0, len(text), 60)]
    heard: list[int] = []
    found = copied(
        rows, [(str(n), part) for n, text in enumerate(held) for part in (text[:33], text[33:])], heard.append
    )
    assert found == {str(n): (by_definition(train, text), len(text)) for n, text in enumerate(held)}
    assert found["2"][0] == len(train[1])
    assert sum(heard) == pytest.approx(sum(map(len, train)), abs=3 * COPY)


def test_a_short_document_is_copied_where_training_has_it_as_a_document() -> None:
    train = [("a", "Yes."), ("b", "No, not at all.")]
    assert copied(train, [("c", "Yes."), ("d", "No, not")]) == {"c": (4, 4), "d": (0, 7)}


def test_a_passage_does_not_run_from_one_training_document_into_the_next() -> None:
    text = prose(1, 20)
    assert copied([("a", text[:40]), ("b", text[40:])], [("c", text[:80])])["c"][0] == 0


def test_of_a_long_held_out_text_the_beginning_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "HELD", 300)
    text = prose(1)
    assert copied([("a", text)], [("b", text[:200]), ("c", text[200:400]), ("d", text)]) == {
        "b": (200, 200),
        "c": (100, 100),
    }


def test_much_that_is_copied_is_warned_of_with_the_documents_that_have_it() -> None:
    assert verdict({"a": (40, 1000), "b": (10, 1000)}).startswith("copies: 2.5% of the held-out text")
    assert "warning" not in verdict({"a": (50, 1000)})
    line = verdict({"a": (0, 1000), "b": (200, 1000)})
    assert "copies: 10.0% of the held-out text" in line
    assert "warning" in line
    assert "Most copies are in b (20%)" in line


def test_of_a_long_held_out_text_the_verdict_names_what_was_looked_at() -> None:
    assert verdict({"a": (0, overlap.HELD - 1)}).startswith("copies: 0.0% of the held-out text stands word for word")
    line = verdict({"a": (0, 1000), "b": (0, overlap.HELD - 1000)})
    assert line.startswith("copies: 0.0% of the first 1,048,576 held-out characters stand word for word")


def test_documents_that_share_much_are_one_group_and_others_stay_alone() -> None:
    one, other = prose(1), prose(2)
    changed = " ".join("stars" if place % 20 == 7 else word for place, word in enumerate(one.split(" ")))
    part = prose(3) + one[:900]
    assert groups(one, other, changed, prose(4), part) == [{0, 2, 4}, {1}, {3}]


def test_the_same_short_text_is_one_group_and_a_shared_beginning_is_none() -> None:
    phrase = prose(7)[:100]
    assert groups("Yes.", "No.", "Yes.", phrase + prose(1), phrase + prose(2)) == [{0, 2}, {1}, {3}, {4}]


def test_copies_of_copies_are_one_group() -> None:
    words = prose(1, 400).split(" ")
    assert groups(*(" ".join(words[start : start + 100]) for start in range(0, 300, 50))) == [set(range(6))]
    assert groups(*[prose(5)] * 30, prose(6)) == [set(range(30)), {30}]


def test_of_much_text_a_sketch_finds_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [prose(seed // 2 if seed < 20 else seed, 400) for seed in range(60)]
    exact = groups(*texts)
    assert len(exact) == 50
    monkeypatch.setattr(overlap, "SKETCH", 60 * 400 * 6 // 20)
    monkeypatch.setattr(overlap, "BLOCK", 5000)
    kept, _ = overlap._sketches(overlap._windows(enumerate(texts), SHINGLE), overlap.SKETCH)
    assert 0 < len(kept) <= overlap.SKETCH
    assert groups(*texts) == exact


def test_of_many_short_texts_a_sketch_joins_copies_and_not_what_begins_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [prose(7)[:30] + random.Random(seed).randbytes(15).hex() for seed in range(400)]
    expected = [{n, 400} if n == 5 else {n} for n in range(400)]
    assert groups(*texts, texts[5]) == expected
    monkeypatch.setattr(overlap, "SKETCH", 4000)
    monkeypatch.setattr(overlap, "SKETCH_EACH", 1)
    assert groups(*texts, texts[5]) == expected


def test_documents_in_pieces_have_the_groups_of_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [prose(1), prose(2), prose(1)[:700], prose(3)]

    def pieces() -> Iterator[tuple[int, str]]:
        for number, text in enumerate(texts):
            yield from ((number, text[at : at + 31]) for at in range(0, len(text), 31))

    monkeypatch.setattr(overlap, "BLOCK", 100)
    whole = near_duplicates(enumerate(texts), 4)
    assert np.array_equal(near_duplicates(pieces(), 4), whole)
    assert whole[0] == whole[2]
    found = [len(part) for part, _ in overlap._windows(pieces(), SHINGLE)]
    assert sum(found) == sum(len(text) - SHINGLE + 1 for text in texts)
