"""Generate text: prefill the prompts, then decode one token at a time, many sequences at once.

`generate(model, tokenizer, "ROMEO:", temperature=0.5)` → completions; `generate_batch` continues several prompts side
by side; `stream` hands text out as it comes. A full context slides: its last half is kept and read again, from position
0 (windows.py is that rule); decoding without a cache, `use_cache=False`, follows it too, and gives the same tokens,
slowly. `for_terminal` makes what a model wrote harmless where it is printed.
"""

import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO, Unpack

import torch
from torch import Tensor

from tinygpt.generation.decoder import Decoder
from tinygpt.generation.sampling import Sampling, Settings, from_keywords, sample, whole
from tinygpt.generation.stream import StoppingDecoder
from tinygpt.generation.windows import window_start
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

THROWS = 64  # of the generators at a time
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's controls, formats, halves of characters, separators of lines


@torch.inference_mode()
def next_logits(
    model: GPT, prompts: list[list[int]], use_cache: bool = True
) -> Generator[Tensor, Sequence[int | None], None]:
    """Logits of the next token of each sequence, float (B, V), on the CPU, again and again.

    prompts: ids, at least one each. Send the chosen ids to get the next logits; a row for which None is sent has
    ended, and the next logits are without it.
    """
    context, sequences = model.config.context_length, [list(prompt) for prompt in prompts]
    decoder = Decoder(model, len(prompts)) if use_cache else None
    while True:
        windows = [sequence[window_start(len(sequence), context) :] for sequence in sequences]
        chosen = yield (decoder.logits(windows) if decoder else uncached_logits(model, windows)).cpu()
        if None in chosen:
            going = [row for row, token in enumerate(chosen) if token is not None]
            sequences = [sequences[row] for row in going]
            if decoder:
                decoder.select_rows(going)
        for sequence, token in zip(sequences, (token for token in chosen if token is not None), strict=True):
            sequence.append(token)


def uncached_logits(model: GPT, windows: list[list[int]]) -> Tensor:
    """Reference implementation of the decoder, without a cache: B windows of ids → float (B, V)."""
    device = next(model.parameters()).device
    return torch.stack([model(torch.tensor([window], device=device))[0, -1] for window in windows])


@torch.inference_mode()
def generate_ids(
    model: GPT,
    prompts: list[list[int]],
    settings: list[Sampling],
    seeds: list[int],
    max_new_tokens: int,
    end_of_text: int,
    use_cache: bool = True,
    ended: Callable[[int], bool] = lambda row: False,
) -> Iterator[list[int | None]]:
    """Continue each prompt, with its own settings and seed, all at once; yields the next id of each, None for those
    that have ended.

    A row ends after `max_new_tokens`, at <|endoftext|>, which is not handed out, or where `ended(row)`, asked after
    each token, says so. It does not depend on the other rows. Tokens are chosen on the CPU, so the same logits give the
    same text on any device. As many prompts, settings and seeds; IndexError for an id outside the vocabulary.
    """
    if not prompts:
        return
    prompts = [prompt or [end_of_text] for prompt in prompts]  # documents start with <|endoftext|>
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen = seen_tokens(prompts, model.config.vocab_size) if any(s.repetition_penalty != 1 for s in settings) else None
    rows = list(range(len(prompts)))  # those that go on
    stepper = next_logits(model, prompts, use_cache)
    logits = next(stepper)
    for count in range(max_new_tokens):
        if count % THROWS == 0:
            uniforms = torch.stack([torch.rand(THROWS, generator=generators[row]) for row in rows])  # (B, THROWS)
        ids = sample(logits, settings, seen, uniforms[:, count % THROWS]).tolist()
        if seen is not None:
            seen[range(len(rows)), ids] = True
        chosen = [token if token != end_of_text else None for token in ids]
        step = dict(zip(rows, chosen, strict=True))
        if not any(token is not None for token in chosen):
            return
        yield [step.get(row) for row in range(len(prompts))]
        chosen = [None if ended(row) else token for row, token in zip(rows, chosen, strict=True)]
        going = [i for i, token in enumerate(chosen) if token is not None]
        if not going:
            return
        if count + 1 < max_new_tokens:
            logits = stepper.send(chosen)
        if len(going) < len(rows):
            rows, settings = [rows[i] for i in going], [settings[i] for i in going]
            uniforms, seen = uniforms[going], None if seen is None else seen[going]


def seen_tokens(prompts: list[list[int]], vocab_size: int) -> Tensor:
    """The tokens that occur in each prompt: bool (B, V)."""
    seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, prompt] = True
    return seen


@dataclass(frozen=True)
class Completion:
    """One continuation of a prompt."""

    prompt: str
    completion: str
    seed: int
    ids: tuple[int, ...] = ()  # the tokens as they were chosen, those of a stop included

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 200,
    num_samples: int = 1,
    stop: str | Sequence[str] | None = None,
    seed: int = 1337,
    advance: Callable[[int], object] = lambda tokens: None,
    **settings: Unpack[Settings],
) -> list[Completion]:
    """Continue `prompt` `num_samples` times; sample i has seed + i, and comes out the same when asked for alone.

    An empty prompt starts a new document; one longer than the context slides. A completion has `max_new_tokens` tokens,
    or fewer: it ends where the model ends the document, and before the first text of `stop`. `settings` are those of
    `Sampling` (temperature, top_k, top_p, min_p, repetition_penalty), with its defaults; None turns a filter off.
    `advance` hears how many tokens were written since it last did.

    TypeError for a keyword that there is not, or a prompt that is no text; ValueError, in a sentence, for a value out
    of bounds, and for a character that the tokenizer cannot write: all before any work.
    """
    sampling, count = from_keywords(generate, settings), whole("num_samples", num_samples, 1)
    return _together(model, tokenizer, [prompt] * count, sampling, max_new_tokens, stop, seed, advance)


def generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 200,
    stop: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 1337,
    advance: Callable[[int], object] = lambda tokens: None,
    **settings: Unpack[Settings],
) -> list[Completion]:
    """Continue each prompt once, in one batch; each result equals that of `generate` alone.

    `seed`: prompt i has seed + i; or one for each. All else, and TypeError and ValueError, as in `generate`.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts is one text; write a list of texts, or call `generate`.")
    sampling = from_keywords(generate_batch, settings)
    return _together(model, tokenizer, list(prompts), sampling, max_new_tokens, stop, seed, advance)


def _together(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: list[str],
    sampling: Sampling,
    max_new_tokens: int,
    stop: str | Sequence[str] | None,
    seed: int | Sequence[int],
    advance: Callable[[int], object],
) -> list[Completion]:
    length, seeds = whole("max_new_tokens", max_new_tokens, 1), _seeds(seed, len(prompts))
    starts, rows = _ids(tokenizer, prompts), [StoppingDecoder(tokenizer, stop) for _ in prompts]
    settings, end = [sampling] * len(rows), tokenizer.end_of_text
    ids: list[list[int]] = [[] for _ in rows]
    texts = [""] * len(rows)
    for step in generate_ids(model, starts, settings, seeds, length, end, ended=lambda row: rows[row].ended):
        for row, token in enumerate(step):
            if token is not None:
                ids[row].append(token)
                texts[row] += rows[row].add(token)
        advance(len(step) - step.count(None))
    texts = [text + row.add(None) for text, row in zip(texts, rows, strict=True)]
    return [Completion(*made) for made in zip(prompts, texts, seeds, map(tuple, ids), strict=True)]


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 200,
    stop: str | Sequence[str] | None = None,
    seed: int = 1337,
    **settings: Unpack[Settings],
) -> Iterator[str]:
    """The completion that `generate` gives, a token at a time; half a character waits for its other half, and what may
    become a text of `stop` for its rest.

    The pieces, some of them empty, make the whole when they are joined. TypeError and ValueError as in `generate`.
    """
    sampling, length = from_keywords(stream, settings), whole("max_new_tokens", max_new_tokens, 1)
    seeds, start, text = _seeds(seed, 1), _ids(tokenizer, [prompt]), StoppingDecoder(tokenizer, stop)
    steps = generate_ids(model, start, [sampling], seeds, length, tokenizer.end_of_text, ended=lambda _: text.ended)

    def pieces() -> Iterator[str]:
        for step in steps:
            yield text.add(step[0])
        yield text.add(None)

    return pieces()


def _ids(tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    """The tokens of each prompt. TypeError where one is no text, or the tokenizer was left out."""
    if isinstance(tokenizer, str):
        raise TypeError("The tokenizer is missing: `model, tokenizer = tinygpt.load(folder)` opens both.")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"A prompt is a {type(prompt).__name__}; write a text. `generate_batch` takes several.")
    return [tokenizer.encode(prompt) for prompt in prompts]


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """A seed for each row: counted up from one, or as many as were given."""
    if isinstance(seed, str) or not isinstance(seed, Sequence):
        return [whole("seed", seed, 0) + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(f"There are {len(seed)} seeds and {count} prompts; give as many, or one seed.")
    return [whole("seed", one, 0) for one in seed]


def for_terminal(text: str, stream: TextIO) -> str:
    """The text as it may be written to the stream: to a terminal, nothing that could steer it.

    A model may have learned from text with escape sequences in it. There, a control character other than a new line
    or a tab is shown as its escape, \\x1b, and so are marks that turn the direction of writing; joiners of letters
    stay. A file or a pipe gets every character as it is.
    """
    if not stream.isatty():
        return text
    kept = {"\n", "\t", "\u200c", "\u200d"}
    return "".join(
        sign if sign in kept or unicodedata.category(sign) not in UNSEEN else ascii(sign)[1:-1] for sign in text
    )
