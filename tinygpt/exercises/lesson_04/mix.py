"""Attention without learned weights: each token becomes a weighted average of all tokens, by similarity.

x holds T tokens, each a vector of C numbers. The score of a pair is the dot product of the two vectors: x @ x.T holds
all T × T of them, row t for token t. softmax turns each row into attention weights, which are positive and sum to one.
The result for token t is the sum of all vectors, each times its weight in row t.

    mix(tensor([[2.0, 0.0], [0.0, 1.0]])) → tensor([[1.96403, 0.01799], [0.53788, 0.73106]])

(`scores.softmax(-1)` is PyTorch's softmax of each row; or write it out, with `exp` and `sum`.)
"""

import torch
from torch import Tensor


def mix(x: Tensor) -> Tensor:
    """(T, C) → (T, C)."""
    raise NotImplementedError
