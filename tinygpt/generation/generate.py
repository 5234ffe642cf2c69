"""Generate text: prefill the prompts, then decode one token at a time, many sequences at once.

`generate(model, tokenizer, "ROMEO:", temperature=0.5)` → completions; `generate_batch` continues several prompts in
one batch; `stream` yields the text as it is generated. When the context is full, its last half is kept and prefilled
again from position 0 (windows.py). Decoding without a cache (`use_cache=False`) follows the same rule and gives the
same tokens, more slowly. `for_terminal` makes generated text safe to print.
"""

import unicodedata
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO, Unpack

import torch
from torch import Tensor

from tinygpt.generation.cpu.decoder import decoder_of
from tinygpt.generation.sampling import Sampling, Settings, from_keywords, sample, validated_integer
from tinygpt.generation.stream import StoppingDecoder
from tinygpt.generation.windows import window_start
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import ASSISTANT, Messages, check_conversation, render

Prompt = str | Messages  # a text to continue, or messages to answer
DRAWS_AT_ONCE = 64  # random numbers from each generator: one call instead of many
UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: controls, formats, surrogates, line separators


def next_logits(
    model: GPT, prompts: list[list[int]], use_cache: bool = True
) -> Generator[Tensor, Sequence[int | None], None]:
    """Yield the logits of each sequence's next token, float (B, V), on the CPU.

    prompts: ids, at least one each. Send the chosen ids to get the next logits. Sending None for a row ends it: the
    next logits do not contain that row.
    """
    context, sequences = model.config.context_length, [list(prompt) for prompt in prompts]
    decoder = decoder_of(model, len(prompts)) if use_cache else None
    while True:
        windows = [sequence[window_start(len(sequence), context) :] for sequence in sequences]
        chosen = yield (decoder.logits(windows) if decoder else uncached_logits(model, windows)).cpu()
        if None in chosen:
            active = [row for row, token in enumerate(chosen) if token is not None]
            sequences = [sequences[row] for row in active]
            if decoder:
                decoder.select_rows(active)
        for sequence, token in zip(sequences, (token for token in chosen if token is not None), strict=True):
            sequence.append(token)


@torch.inference_mode()
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
    stop_tokens: Collection[int],
    use_cache: bool = True,
    ended: Callable[[int], bool] = lambda row: False,
) -> Iterator[list[int | None]]:
    """Continue all prompts in one batch, each with its settings and seed: yields each row's next id, None once ended.

    A row ends after `max_new_tokens`, at one of `stop_tokens` (which is not yielded), or when `ended(row)`, called
    after each token, is true. Rows do not affect each other. Tokens are chosen on the CPU, so the same logits give the
    same text on any device. prompts, at least one id each, settings and seeds have the same length. IndexError for an
    id outside the vocabulary.
    """
    if not prompts:
        return
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen = seen_tokens(prompts, model.config.vocab_size) if any(s.repetition_penalty != 1 for s in settings) else None
    rows = list(range(len(prompts)))  # those that have not ended
    stepper = next_logits(model, prompts, use_cache)
    logits = next(stepper)
    for count in range(max_new_tokens):
        if count % DRAWS_AT_ONCE == 0:
            draws = [torch.rand(DRAWS_AT_ONCE, generator=generators[row]) for row in rows]
            uniforms = torch.stack(draws)  # (B, DRAWS_AT_ONCE)
        ids = sample(logits, settings, seen, uniforms[:, count % DRAWS_AT_ONCE]).tolist()
        if seen is not None:
            seen[range(len(rows)), ids] = True
        chosen = [None if token in stop_tokens else token for token in ids]
        step = dict(zip(rows, chosen, strict=True))
        if not any(token is not None for token in chosen):
            return
        yield [step.get(row) for row in range(len(prompts))]
        chosen = [None if ended(row) else token for row, token in zip(rows, chosen, strict=True)]
        active = [i for i, token in enumerate(chosen) if token is not None]
        if not active:
            return
        if count + 1 < max_new_tokens:
            logits = stepper.send(chosen)
        if len(active) < len(rows):
            rows, settings = [rows[i] for i in active], [settings[i] for i in active]
            uniforms, seen = uniforms[active], None if seen is None else seen[active]


def seen_tokens(prompts: list[list[int]], vocab_size: int) -> Tensor:
    """Which tokens occur in each prompt: bool (B, V)."""
    seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, prompt] = True
    return seen


@dataclass(frozen=True)
class Completion:
    """One continuation of a prompt."""

    prompt: Prompt
    completion: str
    seed: int
    ids: tuple[int, ...] = ()  # the tokens as they were sampled, including those of a stop text

    @property
    def text(self) -> str:
        """Prompt and completion; of messages, as chat_template.render spells them."""
        if isinstance(self.prompt, str):
            return self.prompt + self.completion
        return render(self.prompt) + ASSISTANT + self.completion


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: Prompt = "",
    *,
    max_new_tokens: int = 200,
    num_samples: int = 1,
    stop: str | Sequence[str] | None = None,
    seed: int = 1337,
    advance: Callable[[int], object] = lambda tokens: None,
    **settings: Unpack[Settings],
) -> list[Completion]:
    """Continue `prompt` `num_samples` times. Sample i has seed + i and does not depend on the other samples.

    prompt: a text; or messages, `[{"role": "user", "content": "What is 2 + 3?"}]`, which a model with a chat template
    answers. An empty prompt starts a new document. Of a prompt longer than the context, the end is used (windows.py). A
    completion has at most `max_new_tokens` tokens, and to messages at most those that fit into the context; it ends
    earlier at a special token and before the first `stop` text. `settings` are the fields of `Sampling` (temperature,
    top_k, top_p, min_p, repetition_penalty), with its defaults; None turns a filter off. `advance` is called after each
    step with the number of new tokens.

    TypeError for an unknown keyword, or a prompt that is neither; ValueError for a value out of bounds, messages that
    are no conversation, or a character that the tokenizer cannot encode. All are raised before any work.
    """
    sampling, count = from_keywords(generate, settings), validated_integer("num_samples", num_samples, 1)
    return _complete(model, tokenizer, [prompt] * count, sampling, max_new_tokens, stop, seed, advance)


def generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 200,
    stop: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 1337,
    advance: Callable[[int], object] = lambda tokens: None,
    **settings: Unpack[Settings],
) -> list[Completion]:
    """Continue each prompt once, in one batch; each result equals that of `generate` for this prompt alone.

    seed: prompt i gets seed + i; or a list with one seed for each. The rest, TypeError and ValueError as in `generate`.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts is one string; pass a list of strings, or call `generate`.")
    sampling = from_keywords(generate_batch, settings)
    return _complete(model, tokenizer, list(prompts), sampling, max_new_tokens, stop, seed, advance)


def _complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    sampling: Sampling,
    max_new_tokens: int,
    stop: str | Sequence[str] | None,
    seed: int | Sequence[int],
    advance: Callable[[int], object],
) -> list[Completion]:
    length, seeds = validated_integer("max_new_tokens", max_new_tokens, 1), _seeds(seed, len(prompts))
    starts, rows = _ids(tokenizer, prompts), [StoppingDecoder(tokenizer, stop) for _ in prompts]
    settings, stop_tokens = [sampling] * len(rows), tokenizer.stop_tokens
    most = [most_new_tokens(model, *each, length) for each in zip(prompts, starts, strict=True)]
    ids: list[list[int]] = [[] for _ in rows]
    texts = [""] * len(rows)

    def ended(row: int) -> bool:
        return rows[row].ended or len(ids[row]) >= most[row]

    for step in generate_ids(model, starts, settings, seeds, length, stop_tokens, ended=ended):
        for row, token in enumerate(step):
            if token is not None:
                ids[row].append(token)
                texts[row] += rows[row].add(token)
        advance(len(step) - step.count(None))
    texts = [text + row.add(None) for text, row in zip(texts, rows, strict=True)]
    return [Completion(*fields) for fields in zip(prompts, texts, seeds, map(tuple, ids), strict=True)]


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: Prompt = "",
    *,
    max_new_tokens: int = 200,
    stop: str | Sequence[str] | None = None,
    seed: int = 1337,
    **settings: Unpack[Settings],
) -> Iterator[str]:
    """The completion that `generate` gives, yielded token by token.

    Bytes of an incomplete character, and text that may become a `stop` text, are held back until they are decided. The
    pieces, some of them empty, join to the whole completion. TypeError and ValueError as in `generate`.
    """
    sampling, length = from_keywords(stream, settings), validated_integer("max_new_tokens", max_new_tokens, 1)
    seeds, start, text = _seeds(seed, 1), _ids(tokenizer, [prompt]), StoppingDecoder(tokenizer, stop)
    length = most_new_tokens(model, prompt, start[0], length)
    steps = generate_ids(model, start, [sampling], seeds, length, tokenizer.stop_tokens, ended=lambda _: text.ended)

    def pieces() -> Iterator[str]:
        for step in steps:
            yield text.add(step[0])
        yield text.add(None)

    return pieces()


def _ids(tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The tokens of each prompt, as `prompt_ids`. TypeError if the tokenizer was left out."""
    if isinstance(tokenizer, str):
        raise TypeError("The tokenizer is missing: `model, tokenizer = tinygpt.load(folder)` opens both.")
    return [prompt_ids(tokenizer, prompt) for prompt in prompts]


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """The tokens of a prompt, at least one: a document, and so an empty prompt, begins with <|endoftext|>.

    Messages are followed by <|assistant|>. TypeError and ValueError as in `generate`.
    """
    if isinstance(prompt, str):
        return tokenizer.encode(prompt) or [tokenizer.end_of_text]
    if not isinstance(prompt, list | tuple) or any(isinstance(each, str) for each in prompt):
        what = f"{type(prompt).__name__}{' of strings' if isinstance(prompt, list | tuple) else ''}"
        raise TypeError(f"A prompt is a {what}; pass a string, messages, or several prompts to `generate_batch`.")
    try:
        check_conversation(prompt, answered=False)
    except ValueError as problem:
        raise ValueError(f"The prompt is no conversation to answer: {problem}. Correct it.") from None
    return tokenizer.encode_messages(prompt, add_generation_prompt=True)[0]


def most_new_tokens(model: GPT, prompt: Prompt, ids: Sequence[int], length: int) -> int:
    """How many tokens may follow a prompt whose tokens are `ids` (prompt_ids): at most `length`.

    An answer to messages ends where the context is full, because without their beginning the rest would not be the same
    conversation. ValueError for messages longer than the context (chat.context.fitting shortens).
    """
    if isinstance(prompt, str):
        return length
    context = model.config.context_length
    if len(ids) > context:
        raise ValueError(
            f"The messages take {len(ids)} tokens, and this model sees {context}. Leave out the oldest: "
            "tinygpt.chat.context.fitting does."
        )
    return min(length, context - len(ids) + 1)


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """A seed for each row: counted up from a single one, or one given for each."""
    if isinstance(seed, str) or not isinstance(seed, Sequence):
        return [validated_integer("seed", seed, 0) + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(f"There are {len(seed)} seeds and {count} prompts; give as many, or one seed.")
    return [validated_integer("seed", one, 0) for one in seed]


def for_terminal(text: str, stream: TextIO) -> str:
    """The text without characters that could control a terminal; unchanged if the stream is a file or a pipe.

    A model may reproduce escape sequences of its training text. For a terminal, control characters other than newline
    and tab, and marks that change the writing direction, are shown as escapes such as \\x1b. Zero-width joiners are
    kept, since some scripts need them.
    """
    if not stream.isatty():
        return text
    kept = {"\n", "\t", "\u200c", "\u200d"}
    return "".join(
        character if character in kept or unicodedata.category(character) not in UNPRINTABLE else ascii(character)[1:-1]
        for character in text
    )
