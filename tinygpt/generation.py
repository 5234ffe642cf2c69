"""Text from a model: read the prompts, then write a token at a time, many sequences at once.

`generate(model, tokenizer, "ROMEO:")` → completions; `generate_batch` continues different prompts side by side;
`stream` hands text out as it comes. A full context slides: its last half is kept and read again, from position 0
(`window_start` is that rule); the uncached twin, `use_cache=False`, follows the same rule and gives the same tokens,
slowly. `for_terminal` makes what a model wrote harmless where it is printed.
"""

import codecs
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import torch
from torch import Tensor

from tinygpt.decoding import Decoder
from tinygpt.model import GPT
from tinygpt.sampling import Sampling, choose
from tinygpt.tokenizer import Tokenizer

THROWS = 64  # of the dice at a time
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's controls, formats, halves of characters, separators of lines


def window_start(length: int, context: int) -> int:
    """Where the model's window starts in a sequence of `length` tokens, for a context of so many; counted from 0.

    0 until the context is full; then all but its last half is dropped, until it is full again, and so on. A function
    of the length alone, so that a long prompt and a long answer are treated alike.
    """
    if length <= context:
        return 0
    stride = context - context // 2 + 1  # tokens from one slide to the next
    return -(-(length - context) // stride) * stride


@torch.inference_mode()
def next_logits(
    model: GPT, prompts: list[list[int]], use_cache: bool = True
) -> Generator[Tensor, Sequence[int | None], None]:
    """Scores of the next token of each sequence, float (B, V), on the CPU, again and again.

    prompts: ids, at least one each. Send the chosen ids to get the next scores; a row for which None is sent has
    ended, and the next scores are without it.
    """
    context, sequences = model.config.context_length, [list(prompt) for prompt in prompts]
    decoder = Decoder(model, len(prompts)) if use_cache else None
    while True:
        windows = [sequence[window_start(len(sequence), context) :] for sequence in sequences]
        chosen = yield (decoder.scores(windows) if decoder else uncached_scores(model, windows)).cpu()
        if None in chosen:
            going = [row for row, token in enumerate(chosen) if token is not None]
            sequences = [sequences[row] for row in going]
            if decoder:
                decoder.keep(going)
        for sequence, token in zip(sequences, (token for token in chosen if token is not None), strict=True):
            sequence.append(token)


def uncached_scores(model: GPT, windows: list[list[int]]) -> Tensor:
    """The decoder's slow twin, every token of every window, each time: B windows of ids → float (B, V)."""
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
) -> Iterator[list[int | None]]:
    """Continue each prompt, with its own settings and seed, all at once; yields the next id of each, None for those
    that have ended.

    A row ends after `max_new_tokens`, or at <|endoftext|>, which is not handed out. What becomes of it does not depend
    on the other rows. Tokens are chosen on the CPU, so the same scores give the same text on any device. As many
    prompts, settings and seeds; IndexError for an id outside the vocabulary.
    """
    if not prompts:
        return
    prompts = [prompt or [end_of_text] for prompt in prompts]  # documents start with <|endoftext|>
    dice = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen = None
    if any(one.repetition_penalty != 1 for one in settings):
        seen = torch.zeros(len(prompts), model.config.vocab_size, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, prompt] = True
    rows = list(range(len(prompts)))  # those that go on
    scores = next_logits(model, prompts, use_cache)
    logits = next(scores)
    for count in range(max_new_tokens):
        if count % THROWS == 0:
            uniforms = torch.stack([torch.rand(THROWS, generator=dice[row]) for row in rows])  # (B, THROWS)
        ids = choose(logits, settings, seen, uniforms[:, count % THROWS]).tolist()
        if seen is not None:
            seen[range(len(rows)), ids] = True
        chosen = [token if token != end_of_text else None for token in ids]
        step: list[int | None] = [None] * len(prompts)
        for row, token in zip(rows, chosen, strict=True):
            step[row] = token
        going = [i for i, token in enumerate(chosen) if token is not None]
        if not going:
            return
        yield step
        if count + 1 < max_new_tokens:
            logits = scores.send(chosen)
        if len(going) < len(rows):
            rows, settings = [rows[i] for i in going], [settings[i] for i in going]
            uniforms, seen = uniforms[going], None if seen is None else seen[going]


@dataclass(frozen=True)
class Completion:
    """One continuation of a prompt."""

    prompt: str
    completion: str
    seed: int
    ids: tuple[int, ...] = ()  # the tokens of the completion, as they were chosen

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
    sampling: Sampling | None = None,
    seed: int = 1337,
    advance: Callable[[int], object] = lambda tokens: None,
) -> list[Completion]:
    """Continue `prompt` `num_samples` times; sample i has seed + i, and comes out the same when asked for alone.

    `max_new_tokens`: fewer where the model ends the document. `sampling`: None is Sampling(). An empty prompt starts a
    new document; one longer than the context slides. ValueError, in a sentence, for a character that the tokenizer
    cannot write. `advance` hears how many tokens were written since it last did.
    """
    seeds = [seed + i for i in range(num_samples)]
    settings = [sampling or Sampling()] * num_samples
    return generate_batch(model, tokenizer, [prompt] * num_samples, settings, seeds, max_new_tokens, advance)


def generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: list[str],
    settings: list[Sampling],
    seeds: list[int],
    max_new_tokens: int = 200,
    advance: Callable[[int], object] = lambda tokens: None,
) -> list[Completion]:
    """Continue each prompt once, with its own settings and seed: what `generate` makes of each alone, but together.

    As many prompts, settings and seeds. ValueError as in `generate`.
    """
    ids: list[list[int]] = [[] for _ in prompts]
    starts = [tokenizer.encode(prompt) for prompt in prompts]
    for step in generate_ids(model, starts, settings, seeds, max_new_tokens, tokenizer.end_of_text):
        for row, token in zip(ids, step, strict=True):
            row.extend([] if token is None else [token])
        advance(len(step) - step.count(None))
    texts = map(tokenizer.decode, ids)
    return [Completion(*made) for made in zip(prompts, texts, seeds, map(tuple, ids), strict=True)]


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 200,
    sampling: Sampling | None = None,
    seed: int = 1337,
) -> Iterator[str]:
    """The completion that `generate` gives, a token at a time; half a character waits for its other half.

    The pieces, some of them empty, make the whole when they are joined. ValueError as in `generate`, at the first one.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    start, settings = tokenizer.encode(prompt), sampling or Sampling()
    for (token,) in generate_ids(model, [start], [settings], [seed], max_new_tokens, tokenizer.end_of_text):
        if token is not None:
            yield decoder.decode(tokenizer.token_bytes(token))
    yield decoder.decode(b"", final=True)


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
