"""Reference tokenizing and sampling agree with the fast code on merges, ids, probabilities and tokens."""

import functools
from itertools import islice
from pydoc_data import topics
from typing import Any

import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SHAPES, TEXT, gpt
from tinygpt.config import Tokenize
from tinygpt.data import train_tokenizer
from tinygpt.generation import sampling
from tinygpt.generation.generate import generate_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.generation.windows import window_start
from tinygpt.scratch import bpe
from tinygpt.scratch import sampling as slow
from tinygpt.scratch.gpt import GPT
from tinygpt.tokenizer import pretokenize
from tinygpt.tokenizer.bpe import BPETokenizer

PROSE = [str(text) for _, text in sorted(topics.topics.items())][:6]  # about 60 KB that comes with Python
MIXED = ["naïve café, 東京タワー, Ωμέγα, 🙂👍🏽 don't  we'll\n\n\tx = 12345;\r\n 'S ½²Ⅷ  \n" * 3]
TIES = ["ab cd ef gh", "hg fe dc ba", "aaaa aaa aaaaa"]  # all pairs about as frequent, and a pair that overlaps itself
quick = settings(deadline=None, max_examples=60)


@functools.cache
def learned(merges: int = 300) -> tuple[BPETokenizer, dict[bytes, int]]:
    texts = [*PROSE, *MIXED, TEXT[:400]]
    section = Tokenize(kind="bpe", vocab_size=257 + merges, algorithm="unigram", unknown="replace", **{"from": None})
    tokenizer = train_tokenizer.build(section, texts)
    assert isinstance(tokenizer, BPETokenizer)
    return tokenizer, bpe.learn(texts, merges)


# bpe


def test_the_same_merges_are_learned() -> None:
    tokenizer, vocabulary = learned()
    assert len(vocabulary) == 556
    assert list(vocabulary) == [tokenizer.token_bytes(number) for number in range(556)]


def test_the_same_merges_are_learned_where_all_pairs_are_equally_frequent() -> None:
    merges = [pair for pair, _, _ in islice(bpe.learning(TIES), 12)]
    section = Tokenize(kind="bpe", vocab_size=257 + 12, algorithm="unigram", unknown="replace", **{"from": None})
    tokenizer = train_tokenizer.build(section, TIES)
    assert isinstance(tokenizer, BPETokenizer)
    assert merges == tokenizer._merges


def test_the_same_ids_come_out_and_the_text_comes_back() -> None:
    tokenizer, vocabulary = learned()
    for text in [*PROSE[:2], *MIXED, TEXT[:300], "", " ", "\n"]:
        ids = bpe.encode(text, vocabulary)
        assert ids == tokenizer.encode(text)
        assert bpe.decode(ids, vocabulary) == text


@quick
@given(st.text() | st.text(alphabet=" \t\n\r\x0b\x1c\x85\u00a0\u3000ab1'!stle", max_size=40))
def test_the_same_ids_come_out_of_any_text(text: str) -> None:
    tokenizer, vocabulary = learned()
    assert bpe.encode(text, vocabulary) == tokenizer.encode(text)


def test_any_bytes_decode_alike() -> None:
    tokenizer, vocabulary = learned()
    ids = torch.randint(0, 556, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    assert bpe.decode(ids, vocabulary) == tokenizer.decode(ids)


def test_the_pattern_is_the_one_that_tiktoken_uses_and_loses_nothing() -> None:
    assert bpe.PATTERN == pretokenize.PATTERN
    assert all("".join(regex.findall(bpe.PATTERN, text)) == text for text in [*PROSE, *MIXED])
    assert bpe.split("I'll go,  twice") == ["I", "'ll", " go", ",", " ", " twice"]


def test_no_text_gives_no_merges() -> None:
    assert bpe.learn(["", "a b"], 5) == {token: number for number, token in enumerate([*bpe.BYTES, b" b"])}


def test_each_merge_can_be_watched() -> None:
    assert list(bpe.show_learning("low lower")) == [
        "2 × 'l' + 'o': lo|w| |lo|w|e|r",
        "2 × 'lo' + 'w': low| |low|e|r",
        "1 × 'e' + 'r': low| |low|er",
        "1 × ' ' + 'low': low| low|er",
        "1 × ' low' + 'er': low| lower",
    ]
    vocabulary = bpe.learn(["low lower"], 2)
    assert list(bpe.show_encoding("lowé", vocabulary)) == [r"l|o|w|\xc3|\xa9", r"lo|w|\xc3|\xa9", r"low|\xc3|\xa9"]


# sampling

GRID = [
    Sampling(1.0, top_p=1.0),
    Sampling(0.0),
    Sampling(0.3, top_p=1.0),
    Sampling(2.0, top_p=0.9),
    Sampling(1.0, top_k=5, top_p=1.0),
    Sampling(1.0, top_k=500, top_p=0.35),
    Sampling(1.0, top_p=1.0, min_p=0.2),
    Sampling(0.8, top_p=1.0, repetition_penalty=1.4),
    Sampling(0.0, repetition_penalty=3.0),
    Sampling(0.9, 12, 0.87, 0.05, 0.8),
]


@pytest.mark.parametrize("chosen", GRID)
def test_the_same_scores_give_the_same_probabilities(chosen: Sampling) -> None:
    random = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(5, 40, generator=random)
    seen = torch.rand(5, 40, generator=random) < 0.3
    for row, expected in enumerate(sampling.probabilities(logits, chosen, seen)):
        found = slow.distribution(logits[row].tolist(), chosen, set(seen[row].nonzero()[:, 0].tolist()))
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("chosen", GRID)
def test_equal_scores_are_treated_alike(chosen: Sampling) -> None:
    """Scores 0, 1, 2 and 3, ten of each. Which of equals top-k keeps is not laid down, only how many."""
    logits = torch.arange(40).remainder(4).float()
    expected = sampling.probabilities(logits[None], chosen)[0]
    found = torch.tensor(slow.distribution(logits.tolist(), chosen, set()))
    if chosen.top_k:
        expected, found = expected.sort().values, found.sort().values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_the_same_number_draws_the_same_token() -> None:
    random = torch.Generator().manual_seed(3)
    probs = sampling.probabilities(3 * torch.randn(1, 12, generator=random), Sampling(1.0, top_k=6, top_p=1.0))
    uniforms = torch.cat([torch.rand(300, generator=random), torch.tensor([0.0, 1 - 2**-24])])
    expected = sampling.sample_from(probs.expand(302, -1), uniforms).tolist()
    assert [slow.sample_from(probs[0].tolist(), uniform) for uniform in uniforms.tolist()] == expected
    assert len(set(expected)) == 6


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    probs = [0.0, 0.5, 0.0, 0.5, 0.0]
    for uniform, token in ((0.0, 1), (0.4999, 1), (0.5, 3), (1 - 2**-53, 3)):
        assert slow.sample_from(probs, uniform) == token
        assert sampling.sample_from(torch.tensor([probs]), torch.tensor([uniform], dtype=torch.float64)).item() == token


def test_a_sum_rounded_below_one_still_draws_a_token_that_is_possible() -> None:
    assert slow.sample_from([0.5, 0.4999, 0.0], 0.99995) == 1


@pytest.mark.parametrize("context", [2, 3, 7, 16])
def test_the_window_slides_by_the_same_rule(context: int) -> None:
    for length in range(1, 60):
        sequence = list(range(length))
        assert slow.window(sequence, context) == sequence[window_start(length, context) :]


@pytest.mark.parametrize("name", ["qwen3-grouped", "gpt2"])
@pytest.mark.parametrize("chosen", [Sampling(), Sampling(0.0, repetition_penalty=1.3), Sampling(1.0, 10, 0.9, 0.01)])
def test_the_same_seed_writes_the_same_tokens_also_when_the_window_slides(name: str, chosen: Sampling) -> None:
    model: Any = gpt(**SHAPES[name])
    ref = GPT(model.config)
    ref.load_state_dict(model.state_dict())
    for prompt in ([], [5], list(range(20))):
        written = generate_ids(model, [prompt or [60]], [chosen], [7], 30, stop_tokens={60})
        found = slow.generate(ref, prompt, chosen, seed=7, max_new_tokens=30, end_of_text=60)
        assert found == [token for (token,) in written]


def test_writing_ends_where_the_text_ends() -> None:
    model: Any = gpt()
    ref = GPT(model.config)
    ref.load_state_dict(model.state_dict())
    free = slow.generate(ref, [5], Sampling(), 7, 30, end_of_text=-1)
    assert slow.generate(ref, [5], Sampling(), 7, 30, end_of_text=free[4]) == free[: free.index(free[4])]
