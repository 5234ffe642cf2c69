"""One causal head of attention: the core of a GPT, in about five lines.

Three learned matrices make of each token's vector a query (what it looks for), a key (what it offers to be found by)
and a value (what it hands over). Scores are queries times keys, divided by √D; later tokens are hidden (exercise
hide_future); softmax gives the attention weights; the result is the values, mixed by them. D is the number of columns
of the three matrices. (Your hide_future is in another file: write its line once more.)

    head(tensor([[1.0], [2.0]]), tensor([[1.0]]), tensor([[1.0]]), tensor([[10.0]])) → tensor([[10.0], [18.8080]])

The first token sees itself alone. The second has the scores 2 and 4, so the weights 0.12 and 0.88 of 10 and 20.
"""

import math

import torch
from torch import Tensor


def head(x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """x (T, C), three matrices (C, D) → (T, D)."""
    raise NotImplementedError
