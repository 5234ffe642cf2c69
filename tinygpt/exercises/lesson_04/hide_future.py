"""No looking ahead: scores of tokens that come later become −∞.

Row t of the scores belongs to the token at position t, column s to the token that it looks at. Where s > t, the token
comes later: with a score of −∞, softmax gives it a weight of exactly 0. All other scores stay. (`torch.triu` and
`masked_fill` are one way.) Do not change the tensor that you are given.

    hide_future(tensor([[1.0, 2.0], [3.0, 4.0]])) → tensor([[1.0, -inf], [3.0, 4.0]])
"""

import math

import torch
from torch import Tensor


def hide_future(scores: Tensor) -> Tensor:
    """(T, T) → (T, T)."""
    raise NotImplementedError
