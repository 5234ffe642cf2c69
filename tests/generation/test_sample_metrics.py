"""What is said of a sample is so: surprisal by hand, n-grams counted, words and passages as a naive search has."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import tinygpt
from tests.conftest import TEXT, gpt
from tinygpt.generation import sample_metrics
from tinygpt.generation.generate import Completion, generate, next_logits
from tinygpt.generation.sample_metrics import (
    aggregate,
    distinct,
    held_out_passages,
    model_metrics,
    training_overlap,
    words,
)
from tinygpt.generation.windows import sequence_surprisal
from tinygpt.tokenizer.base import Tokenizer


def test_surprisal_is_that_of_the_scores_the_generator_saw_also_where_the_context_slides() -> None:
    model, ids = gpt(), torch.randint(61, (60,), generator=torch.Generator().manual_seed(3)).tolist()
    prompt, rest = ids[:5], ids[5:]  # 60 tokens in a context of 16
    scores, expected = next_logits(model, [prompt]), []
    logits = next(scores)
    for token in rest:
        expected.append(-torch.log_softmax(logits[0], -1)[token].item() / math.log(2))
        logits = scores.send([token])
    assert sequence_surprisal(model, prompt + rest, len(prompt)) == pytest.approx(np.array(expected), abs=1e-4)
    assert len(sequence_surprisal(model, prompt, len(prompt))) == 0


def test_the_metrics_are_of_the_tokens_that_were_chosen_at_temperature_1(model_folder: Path) -> None:
    model, tokenizer = tinygpt.load(model_folder)
    cold, plain = (
        generate(model, tokenizer, "ROMEO:", max_new_tokens=40, temperature=t, top_p=1.0)[0] for t in (0.0, 1.0)
    )
    found = model_metrics(model, tokenizer, plain)
    prompt = tokenizer.encode("ROMEO:")
    bits = sequence_surprisal(model, [*prompt, *plain.ids], len(prompt))
    assert len(plain.ids) == 40
    assert tokenizer.decode(plain.ids) == plain.completion
    assert found["bits_per_token"] == pytest.approx(bits.mean(), abs=1e-4)
    assert found["bits_per_byte"] == pytest.approx(bits.sum() / len(plain.completion.encode()), abs=1e-4)
    assert model_metrics(model, tokenizer, cold)["bits_per_token"] < found["bits_per_token"]


def test_an_empty_completion_has_no_numbers(model_folder: Path) -> None:
    model, tokenizer = tinygpt.load(model_folder)
    nothing = Completion("", "", 1)
    assert set(model_metrics(model, tokenizer, nothing).values()) == {None}
    assert training_overlap([""], [("a", TEXT)]) == [{"known_words": None, "longest_copy": 0, "copied": ""}]


def test_distinct_n_counts_the_n_grams_of_all_texts_together() -> None:
    one, two = words("The cat, the CAT! O'er-thin."), words("the cat")
    assert one == ["the", "cat", "the", "cat", "o'er", "thin"]
    assert distinct([one], 1) == pytest.approx(4 / 6, abs=1e-4)
    assert distinct([one, two], 2) == pytest.approx(
        4 / 6, abs=1e-4
    )  # the-cat three times, cat-the, cat-o'er, o'er-thin
    assert distinct([two], 3) is None


def test_a_word_is_known_where_the_training_text_has_it_whole() -> None:
    (found,) = training_overlap(["sun sunrise EAST liet"], [("a", "It is the east, and Juliet"), ("b", "is the sun.")])
    assert found["known_words"] == 0.5


def naive(text: str, documents: list[str]) -> int:
    """The length of the longest common substring, by the book; shorter than an n-gram it counts as none."""
    longest = 0
    for document in documents:
        before = [0] * (len(document) + 1)
        for sign in text:
            now = [0] * (len(document) + 1)
            for place, other in enumerate(document):
                if sign == other:
                    now[place + 1] = before[place] + 1
            longest = max(longest, *now)
            before = now
    return longest if longest >= sample_metrics.NGRAM else 0


@pytest.mark.parametrize("seed", range(12))
def test_the_longest_copy_is_the_one_that_a_naive_search_finds(seed: int) -> None:
    """Few letters, so that passages are long; documents in short rows, so that passages lie across them."""
    generator = random.Random(seed)
    alphabet = ["ab", "abc", "aé汉\U0001f600 \n"][seed % 3]
    documents = ["".join(generator.choices(alphabet, k=generator.randrange(1, 300))) for _ in range(3)]
    texts = ["".join(generator.choices(alphabet, k=generator.randrange(40))) for _ in range(6)]
    texts.append(documents[0][3:40] + documents[1][5:60])
    rows = [(str(n), text[at : at + 7]) for n, text in enumerate(documents) for at in range(0, len(text), 7)]
    for text, found in zip(texts, training_overlap(texts, rows), strict=True):
        assert found["longest_copy"] == naive(text, documents)
        assert found["copied"] in text
        assert any(found["copied"] in document for document in documents)


def test_a_passage_longer_by_one_character_takes_the_place_of_the_longest() -> None:
    (found,) = training_overlap(["0123456789a"], [("a", "#0123456789#"), ("b", "#0123456789a#")])
    assert found["copied"] == "0123456789a"


def test_a_passage_does_not_run_from_one_document_into_the_next() -> None:
    (found,) = training_overlap(["0123456789abcdefghij"], [("a", "0123456789"), ("b", "abcdefghij")])
    assert found["copied"] == "0123456789"


def test_hash_collisions_make_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_metrics, "HASH_BITS", 1)  # half of all n-grams collide with one of the sample
    text = "what light through yonder window breaks"
    found = training_overlap([text, "zzzzzzzzzzzz"], [("play", TEXT)])
    assert [one["copied"] for one in found] == [text, ""]


def test_progress_is_reported_while_the_training_text_is_read() -> None:
    heard: list[int] = []
    training_overlap(["x"], [("a", "é"), ("b", "abc")], heard.append)
    assert heard == [2, 3]


def test_held_out_passages_are_as_many_and_as_long_as_samples(characters: Tokenizer) -> None:
    found = held_out_passages([("a", TEXT)], characters, 16, 60)
    assert [len(one.ids) for one in found] == [60] * 16
    assert all(one.text in TEXT for one in found)
    assert len({one.prompt for one in found}) > 4  # TEXT repeats itself
    (short,) = held_out_passages([("a", TEXT[:30])], characters, 16, 60)
    assert short.text == TEXT[:30]
    assert held_out_passages([("a", "x")], characters, 16, 60) == []


def test_samples_with_the_same_settings_are_aggregated() -> None:
    ones: list[sample_metrics.Metrics] = [
        {"bits_per_token": 2.0, "bits_per_byte": 1.0, "known_words": 1.0, "longest_copy": 10},
        {"bits_per_token": 4.0, "bits_per_byte": None, "known_words": 0.5, "longest_copy": 20},
    ]
    found = aggregate(ones, ["the cat sat", "the cat sat"])
    assert found["bits_per_token"] == 3.0
    assert found["bits_per_byte"] == 1.0
    assert found["longest_copy"] == 15.0
    assert found["distinct_2"] == 0.5
