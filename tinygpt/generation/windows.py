"""The context window over a long text: `window_start`, and the logits of every window.

When the context is full, its last half is kept and prefilled again from position 0. Generation with and without a cache
and every analysis of generated text follow this rule.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tinygpt.model.gpt import GPT
from tinygpt.model.loss import surprisal


def window_start(length: int, context: int) -> int:
    """The index, from 0, of the first token that the model sees in a sequence of `length` tokens.

    It is 0 until the context is full; then all but the last half is dropped, until the context is full again. It
    depends on the length alone, so that a long prompt and a long completion are treated alike.
    """
    if length <= context:
        return 0
    stride = context - context // 2 + 1  # tokens from one shift to the next
    return -(-(length - context) // stride) * stride


@torch.inference_mode()
def window_logits(model: GPT, ids: Sequence[int], first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits that predict ids[first:], as in generation, one window at a time; first ≥ 1.

    Yields (logits, targets): float (n, V) and int64 (n,), on the CPU; one forward pass per window.
    """
    position, context, device = first, model.config.context_length, next(model.parameters()).device
    while position < len(ids):
        start = window_start(position, context)
        end = min(len(ids) - 1, start + context)  # the last token that this window predicts
        logits = model(torch.tensor([ids[start:end]], device=device))[0, position - 1 - start :]
        yield logits.float().cpu(), torch.tensor(ids[position : end + 1])
        position = end + 1


def sequence_surprisal(model: GPT, ids: Sequence[int], first: int) -> np.ndarray:
    """Surprisal (−log₂ p) of each of ids[first:], as predicted in generation: float64 (N,), bits; first ≥ 1."""
    parts = [surprisal(logits, targets) for logits, targets in window_logits(model, ids, first)]
    return np.concatenate([np.zeros(0), *parts])
