"""Attention without weights: each token becomes a mixture of all, with more of those that resemble it.

x holds T tokens, each a vector of C numbers. The score of a pair is the product of the two vectors (the sum of the
products of their numbers): x @ x.T holds all T × T of them, row t for token t. softmax turns each row into shares that
are positive and sum to one. The mixture of token t is the sum of all vectors, each times its share in row t.
"""

import torch
from torch import Tensor


def mix(x: Tensor) -> Tensor:
    """(T, C) → (T, C)."""
    raise NotImplementedError
