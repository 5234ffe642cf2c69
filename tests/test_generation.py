"""Cached and uncached agree past the end of the context, a seed's text is its own, streaming loses nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tinygpt
from tests.conftest import gpt
from tinygpt.generation import generate, generate_ids, next_logits, stream, window_start
from tinygpt.sampling import Sampling
from tinygpt.tokenizer import Tokenizer, load

END = 60


def ids(model: Any, prompt: list[int], seeds: list[int], count: int = 60, **settings: Any) -> list[list[int]]:
    prompts, every = [prompt] * len(seeds), [Sampling(**settings)] * len(seeds)
    steps = generate_ids(model, prompts, every, seeds, count, END)
    return [[token for token in row if token is not None] for row in zip(*steps, strict=True)]


@pytest.mark.parametrize("prompt_length", [1, 15, 16, 17, 40])
def test_cached_and_uncached_generation_agree_past_the_end_of_the_context(
    shape: dict[str, Any], prompt_length: int
) -> None:
    model = gpt(**shape)
    prompt = [i % 61 for i in range(prompt_length)]
    scores: list[list[torch.Tensor]] = []
    for use_cache in (True, False):
        steps = next_logits(model, [prompt], use_cache)
        rows = [next(steps)]
        for i in range(40):
            rows.append(steps.send([(i * 7) % 61]))
        scores.append(rows)
    torch.testing.assert_close(torch.stack(scores[0]), torch.stack(scores[1]), rtol=1e-4, atol=1e-4)


def test_a_full_window_keeps_its_last_half() -> None:
    sizes = [length - window_start(length, 16) for length in range(1, 60)]
    assert sizes[:16] == list(range(1, 17))  # it fills up
    assert sizes[16] == 8  # the 17th token finds it full: the last half, this token included, is kept
    assert max(sizes) == 16
    assert sizes[25] == 8  # and again, once it is full again


def test_top_k_1_and_temperature_0_are_both_greedy() -> None:
    model = gpt()
    expected = []
    steps = next_logits(model, [[3, 1, 4]])
    logits = next(steps)
    for _ in range(20):
        expected.append(int(logits.argmax()))
        logits = steps.send([int(logits.argmax())])
    if END in expected:
        expected = expected[: expected.index(END)]
    assert ids(model, [3, 1, 4], [1], 20, temperature=0.0) == [expected]
    assert ids(model, [3, 1, 4], [2], 20, temperature=1.0, top_k=1) == [expected]


def test_a_seed_gives_the_same_text_alone_and_in_company() -> None:
    model = gpt()
    together = ids(model, [5, 6], [11, 12, 13], temperature=1.0)
    alone = [ids(model, [5, 6], [seed], temperature=1.0)[0] for seed in (11, 12, 13)]
    assert together == alone
    assert len({tuple(row) for row in together}) == 3


def test_prompts_of_different_lengths_are_continued_as_each_would_be_alone(shape: dict[str, Any]) -> None:
    """Past the end of the context, which each row reaches, and slides at, in its own time."""
    model = gpt(**shape)
    prompts, seeds = [[5], [1, 2, 3, 4, 5, 6, 7], list(range(30)), [5], [9] * 16], [1, 2, 3, 4, 5]
    settings = [Sampling(temperature=t, top_p=1.0) for t in (0.0, 1.0, 0.0, 1.0, 1.5)]
    together = [list(row) for row in zip(*generate_ids(model, prompts, settings, seeds, 40, END), strict=True)]
    for prompt, setting, seed, row in zip(prompts, settings, seeds, together, strict=True):
        alone = [token for (token,) in generate_ids(model, [prompt], [setting], [seed], 40, END, use_cache=False)]
        assert [token for token in row if token is not None] == alone


def test_closing_a_stream_early_ends_it(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    pieces = stream(model, tokenizer, "JUL", max_new_tokens=10**9)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert list(pieces) == []


def test_the_repetition_penalty_counts_what_was_generated() -> None:
    """Greedy with an overwhelming penalty: no token comes twice, be it from the prompt or from the answer."""
    (row,) = ids(gpt(), [3, 1, 4], [1], 40, temperature=0.0, repetition_penalty=1e9)
    assert len({3, 1, 4, *row}) == 3 + len(row)


def test_generation_ends_at_end_of_text_and_does_not_hand_it_out() -> None:
    model = gpt()
    with torch.no_grad():
        model.head.weight[END] = 0
        model.norm.weight.fill_(1)
    rows = ids(model, [1], list(range(8)), 400, temperature=3.0)
    assert all(END not in row for row in rows)
    assert min(map(len, rows)) < 400  # some did end early
    assert ids(model, [1], [0], 5, temperature=1.0, top_k=1) == [ids(model, [1], [0], 60, temperature=0.0)[0][:5]]


def opened(folder: Path) -> tuple[Any, Tokenizer]:
    return tinygpt.load(folder)


def test_a_model_that_learned_its_text_writes_its_words(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    text = generate(model, tokenizer, "ROM", max_new_tokens=30, sampling=Sampling(temperature=0))[0].text
    assert text.startswith("ROMEO")


def test_streaming_gives_what_generate_gives(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    whole = generate(model, tokenizer, "JUL", max_new_tokens=50, seed=5)[0].completion
    assert "".join(stream(model, tokenizer, "JUL", max_new_tokens=50, seed=5)) == whole


def test_samples_are_numbered_by_their_seeds(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    made = generate(model, tokenizer, "O ", num_samples=3, max_new_tokens=20, seed=100)
    assert [completion.seed for completion in made] == [100, 101, 102]
    assert generate(model, tokenizer, "O ", max_new_tokens=20, seed=102)[0] == made[2]


def test_an_empty_prompt_starts_a_document_and_a_long_one_slides(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    assert generate(model, tokenizer, "", max_new_tokens=5)[0].prompt == ""
    long = "O Romeo, Romeo! wherefore art thou Romeo?\n" * 20
    assert len(generate(model, tokenizer, long, max_new_tokens=5)[0].completion) == 5


def test_streaming_holds_back_half_characters(model_folder: Path) -> None:
    model, _ = opened(model_folder)

    class Bytes:
        """A tokenizer of single bytes, for which the model's ids stand for the bytes of é, over and over."""

        end_of_text = -1

        def encode(self, text: str) -> list[int]:
            return [0]

        def token_bytes(self, token: int) -> bytes:
            return next(self.source)

        def __init__(self) -> None:
            self.source = iter([b"\xc3", b"\xa9"] * 3 + [b"\xc3"])

    pieces = list(stream(model, Bytes(), "", max_new_tokens=7))  # type: ignore[arg-type]
    assert pieces == ["", "é", "", "é", "", "é", "", "\ufffd"]


def test_the_tokenizer_travels_with_the_model(model_folder: Path, characters: Tokenizer) -> None:
    assert load(model_folder).encode("Juliet") == characters.encode("Juliet")
