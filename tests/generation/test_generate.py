"""Cached and uncached agree past the end of the context, a row's text is its own, streaming loses nothing."""

import dataclasses
import io
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tinygpt
from tests.conftest import gpt
from tinygpt.generation.cpu.decoder import LoopDecoder
from tinygpt.generation.generate import (
    for_terminal,
    generate,
    generate_batch,
    generate_ids,
    next_logits,
    stream,
)
from tinygpt.generation.sampling import Sampling
from tinygpt.generation.stream import StoppingDecoder
from tinygpt.generation.windows import window_start
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.folder import load

END = 60


def ids(model: Any, prompts: list[list[int]], seeds: list[int], count: int = 60, **settings: Any) -> list[list[int]]:
    rows = [Sampling(**settings)] * len(seeds)
    steps = generate_ids(model, prompts * (len(seeds) // len(prompts)), rows, seeds, count, {END})
    return [[token for token in row if token is not None] for row in zip(*steps, strict=True)]


def numbers(length: int) -> list[int]:
    return [i % 61 for i in range(length)]


def scored(model: Any, prompts: list[list[int]], steps: int = 40, use_cache: bool = True) -> torch.Tensor:
    """Scores of a few steps, for which fixed tokens are sent: (steps + 1, B, V)."""
    scores = next_logits(model, prompts, use_cache)
    rows = [next(scores)] + [scores.send([(i * 7 + len(prompt)) % 61 for prompt in prompts]) for i in range(steps)]
    return torch.stack(rows)


def test_cached_and_uncached_generation_agree_past_the_end_of_the_context(shape: dict[str, Any]) -> None:
    """Side by side, at prompt lengths around that of the context (16)."""
    model, prompts = gpt(**shape), [numbers(length) for length in (1, 40, 15, 16, 17, 3, 3)]
    fast, slow = scored(model, prompts), scored(model, prompts, use_cache=False)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    assert torch.equal(fast.argmax(-1), slow.argmax(-1))


@pytest.mark.parametrize("context_length", [2, 3, 5])
def test_the_shortest_contexts_slide_too(context_length: int) -> None:
    model, prompts = gpt(context_length=context_length), [[1], [2, 3, 4]]
    torch.testing.assert_close(scored(model, prompts), scored(model, prompts, use_cache=False), rtol=1e-4, atol=1e-4)


def test_a_rows_scores_are_what_they_are_alone(shape: dict[str, Any]) -> None:
    """Among longer, shorter and like sequences, which slide when it does not; and when those beside it have ended."""
    model, prompts = gpt(**shape), [numbers(length) for length in (5, 12, 1, 5, 30)]
    together = scored(model, prompts, 20)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(together[:, row], scored(model, [prompt], 20)[:, 0], rtol=1e-4, atol=1e-4)
    some = next_logits(model, prompts)
    next(some)
    left = some.send([None, (len(prompts[1])) % 61, None, None, len(prompts[4]) % 61])
    torch.testing.assert_close(left, together[1, [1, 4]], rtol=1e-4, atol=1e-4)


def test_each_token_is_computed_once_until_the_window_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    plain = LoopDecoder.forward

    def counted(self: Any, texts: list[tuple[int, ...]], *rest: Any) -> None:
        computed.append(sum(map(len, texts)))
        plain(self, texts, *rest)

    monkeypatch.setattr(LoopDecoder, "forward", counted)
    scored(gpt(), [numbers(10), numbers(10), numbers(14)], 5)
    # both prompts of 10 are read once, but for the last token; the third is full (16) after two more, and keeps 8
    assert computed == [22, 3, 3, 3, 7, 3, 3, 3]


def test_closing_the_text_early_frees_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders: list[weakref.ref[Any]] = []
    build = LoopDecoder.__init__

    def remembered(self: Any, *rest: Any) -> None:
        build(self, *rest)
        decoders.append(weakref.ref(self))

    monkeypatch.setattr(LoopDecoder, "__init__", remembered)
    steps: Any = generate_ids(gpt(), [[1, 2]], [Sampling()], [1], 50, {END})
    next(steps)
    assert [decoder() is None for decoder in decoders] == [False]
    steps.close()
    assert [decoder() is None for decoder in decoders] == [True]


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
        logits = steps.send(expected[-1:])
    if END in expected:
        expected = expected[: expected.index(END)]
    assert ids(model, [[3, 1, 4]], [1], 20, temperature=0.0) == [expected]
    assert ids(model, [[3, 1, 4]], [2], 20, temperature=1.0, top_k=1) == [expected]


def test_a_seed_gives_the_same_text_alone_and_in_company() -> None:
    model = gpt()
    together = ids(model, [[5, 6]], [11, 12, 13], temperature=1.0)
    alone = [ids(model, [[5, 6]], [seed], temperature=1.0)[0] for seed in (11, 12, 13)]
    assert together == alone
    assert len({tuple(row) for row in together}) == 3


def test_the_repetition_penalty_counts_what_was_generated() -> None:
    """Greedy with an overwhelming penalty: no token comes twice, be it from the prompt or from the answer."""
    (row,) = ids(gpt(), [[3, 1, 4]], [1], 40, temperature=0.0, repetition_penalty=1e9)
    assert len({3, 1, 4, *row}) == 3 + len(row)


def test_generation_ends_at_end_of_text_and_does_not_hand_it_out() -> None:
    model = gpt()
    with torch.no_grad():
        model.head.weight[END] = 0
        model.norm.weight.fill_(1)
    rows = ids(model, [[1]], list(range(8)), 400, temperature=3.0)
    assert all(END not in row for row in rows)
    assert min(map(len, rows)) < 400  # some did end early
    assert ids(model, [[1]], [0], 5, temperature=1.0, top_k=1) == [ids(model, [[1]], [0], 60, temperature=0.0)[0][:5]]


def opened(folder: Path) -> tuple[Any, Tokenizer]:
    return tinygpt.load(folder)


def test_a_model_that_learned_its_text_writes_its_words(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    text = generate(model, tokenizer, "ROM", max_new_tokens=30, temperature=0)[0].text
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


@pytest.mark.parametrize("stop", [None, ["\n", "wh"]])
def test_a_batch_of_prompts_gives_what_each_gives_alone(model_folder: Path, stop: Any) -> None:
    model, tokenizer = opened(model_folder)
    prompts, settings = ["O Romeo, Romeo! wherefore", "JUL", "", "JUL"], {"temperature": 1.2, "stop": stop}
    made = generate_batch(model, tokenizer, prompts, max_new_tokens=30, seed=[9, 2, 3, 4], **settings)
    for prompt, seed, one in zip(prompts, [9, 2, 3, 4], made, strict=True):
        assert generate(model, tokenizer, prompt, max_new_tokens=30, seed=seed, **settings) == [one]
    counted = generate_batch(model, tokenizer, ["JUL", "JUL"], max_new_tokens=30, seed=3, **settings)
    assert counted == generate(model, tokenizer, "JUL", num_samples=2, max_new_tokens=30, seed=3, **settings)


def test_rows_with_settings_of_their_own_are_what_they_are_alone() -> None:
    rows = [Sampling(), Sampling(temperature=0), Sampling(temperature=1.5), Sampling(repetition_penalty=1.5)]
    together = list(zip(*generate_ids(gpt(), [[5, 6]] * 4, rows, [1, 2, 3, 4], 30, stop_tokens=()), strict=True))
    for row, one, seed in zip(together, rows, [1, 2, 3, 4], strict=True):
        assert [(token,) for token in row] == [*map(tuple, generate_ids(gpt(), [[5, 6]], [one], [seed], 30, ()))]


KEYWORDS: list[Any] = [
    {"temperature": 0.0, "top_p": 0.9},
    {"temperature": np.float32(0.5), "top_k": np.int64(5), "seed": np.int64(3)},
    {"temperature": torch.tensor(0.5), "top_k": torch.tensor(5), "max_new_tokens": torch.tensor(9)},
    {"temperature": 1, "top_k": None, "top_p": None, "min_p": None, "repetition_penalty": None, "stop": None},
    {"stop": "u", "min_p": 0.01},
    {"stop": ("u", "e"), "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("keywords", KEYWORDS)
def test_generate_stream_and_generate_batch_take_all_settings_as_keywords(model_folder: Path, keywords: Any) -> None:
    model, tokenizer = tinygpt.load(str(model_folder))
    model.train()  # as after training it: there is no dropout in what is written
    (made,) = tinygpt.generate(model, tokenizer, "ROMEO:", **keywords)
    names = {field.name for field in dataclasses.fields(Sampling)}
    off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    settings: Any = {k: off.get(k) if v is None else v for k, v in keywords.items() if k in names}
    settings = Sampling(**settings)
    seed, length = int(keywords.get("seed", 1337)), int(keywords.get("max_new_tokens", 200))
    start = tokenizer.encode("ROMEO:")
    steps = generate_ids(model, [start], [settings], [seed], length, tokenizer.stop_tokens)
    plain = tokenizer.decode([one for (one,) in steps if one is not None])
    ends = [plain.find(stop) for stop in keywords.get("stop") or () if stop in plain]
    assert made.completion == plain[: min(ends, default=None)]
    assert not any(stop in tokenizer.decode(made.ids[:-1]) for stop in keywords.get("stop") or ())  # it wrote no more
    assert "".join(tinygpt.stream(model, tokenizer, "ROMEO:", **keywords)) == made.completion
    assert tinygpt.generate_batch(model, tokenizer, ["ROMEO:"], **keywords) == [made]


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"temprature": 1}, "temprature is no keyword of {}; did you mean temperature?"),
        ({"max_tokens": 1}, "max_tokens is no keyword of {}; did you mean max_new_tokens?"),
        ({"do_sample": False}, "repetition_penalty."),  # all names are listed
        ({"sampling": Sampling()}, "sampling is no keyword of {}; allowed here: max_new_tokens,"),
        ({"temperature": -1}, "temperature is -1; it must be 0 or more."),
        ({"temperature": None}, "temperature is None; it must be a number, 0 or more."),
        ({"temperature": "0.5"}, "temperature is '0.5'; it must be a number, 0 or more."),
        ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number, 0 (off) or more."),
        ({"top_k": True}, "top_k is True; it must be a whole number"),
        ({"top_p": [0.9]}, "top_p is [0.9]; it must be a number, above 0 and at most 1."),
        ({"min_p": torch.ones(2)}, "it must be a number, 0 or more, and below 1."),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"seed": None}, "seed is None; it must be a whole number, 0 or more"),
        ({"stop": ""}, "stop is ''; it must be a text that is not empty, or a list of such texts."),
        ({"stop": 13}, "stop is 13; it must be a text"),
        ({"stop": ["a", b"b"]}, "it must be a text"),
    ],
)
def test_a_wrong_keyword_is_refused_in_a_sentence_before_any_work(
    characters: Tokenizer, keywords: Any, sentence: str
) -> None:
    nothing: Any = None  # for a model: nothing was asked of it
    calls: Any = ((generate, "O"), (stream, "O"), (generate_batch, ["O", "O"]))
    for call, prompt in calls:
        with pytest.raises((TypeError, ValueError), match=re.escape(sentence.format(call.__name__))):
            call(nothing, characters, prompt, **keywords)


@pytest.mark.parametrize(
    ("call", "given", "sentence"),
    [
        (generate, (["O", "R"],), "A prompt is a list of strings; pass a string, messages, or several prompts to `gen"),
        (stream, (b"O",), "A prompt is a bytes; pass a string,"),
        (generate_batch, ("ROMEO:",), "prompts is one string; pass a list of strings, or call `generate`."),
        (generate_batch, ([3, 4],), "A prompt is a int; pass a string,"),
    ],
)
def test_a_prompt_that_is_no_text_is_refused_in_a_sentence(
    characters: Tokenizer, call: Any, given: Any, sentence: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        call(None, characters, *given)
    with pytest.raises(TypeError, match="The tokenizer is missing"):
        generate(None, "ROMEO:")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="There are 1 seeds and 2 prompts"):
        generate_batch(gpt(), characters, ["O", "R"], seed=[1])
    with pytest.raises(ValueError, match="num_samples is 0; it must be 1 or more"):
        generate(gpt(), characters, num_samples=0)


def test_a_stop_is_found_across_tokens_and_a_half_of_one_is_not_lost(characters: Tokenizer) -> None:
    def told(text: str, *stop: str) -> list[str]:
        row = StoppingDecoder(characters, stop)
        return [row.add(token) for token in [*characters.encode(text), None]]

    assert told("O R\n\nU", "\n\n") == ["O", " ", "R", "", "", "", ""]
    assert told("O\nR\n", "\n\n") == ["O", "", "\nR", "", "\n"]
    assert "".join(told("ROMEO", "MAX", "EO")) == "ROM"
    assert "".join(told("ROME", "OX", "E")) == "ROM"
    assert "".join(told("what?", ".", "a.", "t?")) == "wha"


def test_an_empty_prompt_starts_a_document_and_a_long_one_slides(model_folder: Path) -> None:
    model, tokenizer = opened(model_folder)
    assert generate(model, tokenizer, "", max_new_tokens=5)[0].prompt == ""
    long = "O Romeo, Romeo! wherefore art thou Romeo?\n" * 20
    assert len(generate(model, tokenizer, long, max_new_tokens=5)[0].completion) == 5


def test_streaming_holds_back_half_characters(model_folder: Path) -> None:
    model, _ = opened(model_folder)

    class Bytes:
        """A tokenizer of single bytes, for which the model's ids stand for the bytes of é, over and over."""

        stop_tokens = frozenset({-1})

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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_sent_text_and_nothing_that_steers_it() -> None:
    steering = "a\x1b[2J\r\x07\x9b1m\u202eb\u2028\ud800"
    assert for_terminal(steering, Terminal()) == r"a\x1b[2J\r\x07\x9b1m\u202eb\u2028\ud800"
    plain = "Née\n\t汉字\u00a0न\u200dम 👩\u200d🚀"
    assert for_terminal(plain, Terminal()) == plain
    assert for_terminal(steering, io.StringIO()) == steering


def test_progress_hears_of_every_token(characters: Tokenizer) -> None:
    heard: list[int] = []
    made = tinygpt.generate(
        gpt(characters.vocab_size), characters, "O", max_new_tokens=40, num_samples=3, advance=heard.append
    )
    assert sum(heard) == sum(len(characters.encode(one.completion)) for one in made)
    assert len(heard) <= 40
