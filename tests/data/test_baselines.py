"""tinygpt/data/baselines.py: the figures mean what they say."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.data import baselines
from tinygpt.data.baselines import NAMES, ngram_bits, ngram_probabilities, pack

VERSE = b"".join(b"Who's there? Nay, answer me: stand, and unfold yourself %d.\n" % number for number in range(400))


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(1, 5), st.data())
def test_the_probabilities_of_the_256_next_bytes_sum_to_one(train: bytes, order: int, data: st.DataObject) -> None:
    known = st.integers(0, len(train)).map(lambda end: (bytes(4) + train)[end : end + 4])
    context = data.draw(st.one_of(known, st.binary(min_size=4, max_size=4)))[: order - 1]
    grams = np.arange(256) + (int.from_bytes(context) << 8)
    probabilities = ngram_probabilities(train, grams, order)
    assert probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert probabilities.min() > 0


def test_ngrams_are_packed_with_the_last_byte_lowest() -> None:
    assert pack(b"abcd", 3).tolist() == [int.from_bytes(b"abc"), int.from_bytes(b"bcd")]


def test_a_bigram_agrees_with_the_formula_written_out() -> None:
    # After "a" come "b" four times and "c" once; discounts of this text: counts 1, 2 and 4 → see _discounts
    train, pair = b"ababababac", (ord("a") << 8) | ord("b")
    discounts = baselines._discounts(np.array([1, 4, 4, 1]))  # \0a, ab, ba, ac
    lower = baselines._discounts(np.array([1, 2, 1]))  # contexts before b, a, c
    unigram = (1 - lower[1] + lower[[1, 2, 1]].sum() / 256) / 4
    expected = (4 - discounts[3] + (discounts[3] + discounts[1]) * unigram) / 5
    assert ngram_probabilities(train, np.array([pair]), 2)[0] == pytest.approx(expected)


def test_ngrams_learn_from_training_text_alone() -> None:
    repeated = b"q" * 1000  # a validation text that would be free, had it been learned from
    assert ngram_bits(VERSE, repeated, 5) > 8


def test_a_longer_context_predicts_better() -> None:
    unigram, bigram, five_gram = (ngram_bits(VERSE, VERSE[-3000:], order) for order in (1, 2, 5))
    assert unigram > bigram > five_gram


def test_random_bytes_cost_about_eight_bits_by_every_baseline() -> None:
    noise = random.Random(0).randbytes(120_000)
    found = baselines.bits_per_byte(noise[:100_000], noise[100_000:])
    assert all(7.9 < bits < 8.6 for bits in found.values()), found


def test_compressors_are_charged_only_for_what_validation_adds() -> None:
    noise = random.Random(0).randbytes(50_000)
    found = baselines.bits_per_byte(noise, noise[:20_000])  # incompressible alone, but known from training
    assert found["xz"] < 0.5


def test_uniform_knows_which_bytes_occur() -> None:
    assert baselines.bits_per_byte(b"abc" * 9, b"d" * 9)["uniform"] == 2


def test_every_baseline_is_named_and_reported_as_it_is_done() -> None:
    done: list[int] = []
    assert tuple(baselines.bits_per_byte(VERSE, VERSE, done.append)) == NAMES
    assert sum(done) == len(NAMES)


@pytest.mark.parametrize("pair", [(b"", b"text"), (b"text", b"")])
def test_an_empty_part_is_refused_in_a_sentence(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="dvc repro download"):
        baselines.bits_per_byte(*pair)


def test_only_the_beginning_of_a_huge_text_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "validation"):
        rows = [[name] * 3, [VERSE.decode()] * 3]
        pq.write_table(pa.table(rows, names=["document", "text"]), tmp_path / f"{name}.parquet")
    monkeypatch.setattr(baselines, "SAMPLE", len(VERSE) + 5)
    found = baselines.measure(tmp_path / "train.parquet", tmp_path / "validation.parquet")
    assert found["train_bytes"] == found["validation_bytes"] == 3 * len(VERSE)
    assert found["sampled_train_bytes"] == found["sampled_validation_bytes"] == len(VERSE) + 5
    beginning = (VERSE * 3)[: len(VERSE) + 5]
    assert found["bits_per_byte"] == baselines.bits_per_byte(beginning, beginning)
