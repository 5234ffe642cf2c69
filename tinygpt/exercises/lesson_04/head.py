"""One causal head of attention: the core of a GPT, in about five lines.

Three learned matrices make of each token's vector a query (what it looks for), a key (what it offers to be found by)
and a value (what it hands over). Scores are queries times keys, divided by √D; later tokens are hidden (exercise
hide_future); softmax gives shares; the result is the values, mixed by their shares.
"""

import math

import torch
from torch import Tensor


def head(x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """x (T, C), three matrices (C, D) → (T, D)."""
    raise NotImplementedError
