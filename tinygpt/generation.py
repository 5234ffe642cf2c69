"""Text from a model: prefill the prompt, then decode a token at a time with a cache of keys and values.

`generate(model, tokenizer, "ROMEO:")` → completions; `stream` hands them out as they come. A full context slides: its
last half is kept and read again, from position 0 (`window_start` is that rule); the uncached twin,
`use_cache=False`, follows the same rule and gives the same tokens, slowly.
"""

import codecs
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tinygpt.model import GPT, KVCache
from tinygpt.sampling import Sampling, draw, probabilities
from tinygpt.tokenizer import Tokenizer


def window_start(length: int, context: int) -> int:
    """Where the model's window starts in a sequence of `length` tokens.

    0 until the context is full; then all but its last half is dropped, until it is full again, and so on. A function
    of the length alone, so that a long prompt and a long answer are treated alike.
    """
    if length <= context:
        return 0
    stride = context - context // 2 + 1  # tokens from one slide to the next
    return -(-(length - context) // stride) * stride


@torch.no_grad()
def next_logits(model: GPT, prompt: Tensor, use_cache: bool = True) -> Generator[Tensor, Tensor]:
    """Scores of the next token (B, V), again and again: send the chosen tokens, int64 (B,), to get the next scores.

    prompt: int64 (B, T), T ≥ 1. All tensors that come and go are on the CPU; the model may be elsewhere.
    """
    device, context = next(model.parameters()).device, model.config.context_length
    sequence = prompt.to(device)
    cache = KVCache(model.config, len(prompt), device) if use_cache else None
    start = 0
    while True:
        first = window_start(sequence.shape[1], context)
        if cache is not None and first != start:
            cache.length = 0  # the window has moved: prefill it again, from position 0
        start = first
        known = 0 if cache is None else cache.length
        chosen = yield model(sequence[:, start + known :], cache)[:, -1].cpu()
        sequence = torch.cat((sequence, chosen[:, None].to(device)), dim=1)


@torch.no_grad()
def generate_ids(
    model: GPT,
    prompt: list[int],
    settings: Sampling,
    seeds: list[int],
    max_new_tokens: int,
    end_of_text: int,
    use_cache: bool = True,
) -> Iterator[list[int | None]]:
    """Continue one prompt once for each seed, all at once; yields the next id of each, None for those that have ended.

    A continuation ends after `max_new_tokens`, or at <|endoftext|>, which is not handed out. What a seed gives does
    not depend on the other seeds. Tokens are chosen on the CPU, so the same scores give the same text on any device.
    """
    tokens = torch.tensor([prompt or [end_of_text]] * len(seeds))  # (B, T); documents start with <|endoftext|>
    dice = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen = torch.zeros(len(seeds), model.config.vocab_size, dtype=torch.bool).scatter_(1, tokens, True)
    ended = [False] * len(seeds)
    scores = next_logits(model, tokens, use_cache)
    logits = next(scores)
    for count in range(1, max_new_tokens + 1):
        uniforms = torch.cat([torch.rand(1, generator=die) for die in dice])
        chosen = draw(probabilities(logits, settings, seen), uniforms)  # (B,)
        ids = chosen.tolist()
        ended = [over or token == end_of_text for over, token in zip(ended, ids, strict=True)]
        if all(ended):
            return
        yield [None if over else token for over, token in zip(ended, ids, strict=True)]
        if count < max_new_tokens:
            seen.scatter_(1, chosen[:, None], True)
            logits = scores.send(chosen)


@dataclass(frozen=True)
class Completion:
    """One continuation of a prompt."""

    prompt: str
    completion: str
    seed: int

    @property
    def text(self) -> str:
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
) -> list[Completion]:
    """Continue `prompt` `num_samples` times; sample i has seed + i, and comes out the same when asked for alone.

    An empty prompt starts a new document; one longer than the context slides. ValueError for settings out of bounds.
    """
    seeds = [seed + i for i in range(num_samples)]
    ids: list[list[int]] = [[] for _ in seeds]
    start = tokenizer.encode(prompt)
    for step in generate_ids(model, start, sampling or Sampling(), seeds, max_new_tokens, tokenizer.end_of_text):
        for row, token in zip(ids, step, strict=True):
            row.extend([] if token is None else [token])
    return [Completion(prompt, tokenizer.decode(row), seed) for row, seed in zip(ids, seeds, strict=True)]


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 200,
    sampling: Sampling | None = None,
    seed: int = 1337,
) -> Iterator[str]:
    """The completion that `generate` gives, a token at a time; half a character waits for its other half."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    start = tokenizer.encode(prompt)
    for (token,) in generate_ids(model, start, sampling or Sampling(), [seed], max_new_tokens, tokenizer.end_of_text):
        if token is not None:
            yield decoder.decode(tokenizer.token_bytes(token))
    yield decoder.decode(b"", final=True)
