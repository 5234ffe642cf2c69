"""The context window over a long text: `window_start`, and the logits of every window.

A full context slides: its last half is kept and read again, from position 0. Generation, its uncached form, and
whatever looks at a text that was generated follow this one rule.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tinygpt.model.gpt import GPT
from tinygpt.model.loss import surprisal


def window_start(length: int, context: int) -> int:
    """Where the model's window starts in a sequence of `length` tokens, for this `context`; counted from 0.

    0 until the context is full; then all but its last half is dropped, until it is full again, and so on. A function
    of the length alone, so that a long prompt and a long answer are treated alike.
    """
    if length <= context:
        return 0
    stride = context - context // 2 + 1  # tokens from one slide to the next
    return -(-(length - context) // stride) * stride


@torch.inference_mode()
def window_logits(model: GPT, ids: Sequence[int], first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits with which a generator predicted ids[first:], a window at a time; first ≥ 1.

    Yields (logits, targets): float (n, V) and int64 (n,), on the CPU; one pass of the model for each window.
    """
    place, context, device = first, model.config.context_length, next(model.parameters()).device
    while place < len(ids):
        start = window_start(place, context)
        end = min(len(ids) - 1, start + context)  # the last token that this window predicts
        logits = model(torch.tensor([ids[start:end]], device=device))[0, place - 1 - start :]
        yield logits.float().cpu(), torch.tensor(ids[place : end + 1])
        place = end + 1


def sequence_surprisal(model: GPT, ids: Sequence[int], first: int) -> np.ndarray:
    """−log₂ of the probability of each of ids[first:], as a generator predicted it: (N,) float64, bits; first ≥ 1."""
    parts = [surprisal(logits, targets) for logits, targets in window_logits(model, ids, first)]
    return np.concatenate([np.zeros(0), *parts])
