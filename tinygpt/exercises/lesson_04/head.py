"""One causal attention head: the core of a GPT, in about five lines.

Three learned matrices project each token's vector to a query, a key and a value. The scores are the dot products of
queries and keys, divided by √D; the causal mask hides later tokens (exercise hide_future); softmax gives the attention
weights; the result is the weighted sum of the values. D is the number of columns of the three matrices. (Your
hide_future is in another file: repeat its line.)

    head(tensor([[1.0], [2.0]]), tensor([[1.0]]), tensor([[1.0]]), tensor([[10.0]])) → tensor([[10.0], [18.8080]])

The first token attends only to itself. The second has the scores 2 and 4, so the weights 0.12 and 0.88 for 10 and 20.
"""

import math

import torch
from torch import Tensor


def head(x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """x (T, C), three matrices (C, D) → (T, D)."""
    raise NotImplementedError
