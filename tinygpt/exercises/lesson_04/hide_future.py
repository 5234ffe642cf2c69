"""The causal mask: scores of later tokens become −∞.

Row t of the scores belongs to the query at position t, column s to the key at position s. If s > t, set the score to
−∞, so that softmax gives it a weight of exactly 0. All other scores are unchanged. (`torch.triu` and `masked_fill` are
one way.) Do not modify the input tensor.

    hide_future(tensor([[1.0, 2.0], [3.0, 4.0]])) → tensor([[1.0, -inf], [3.0, 4.0]])
"""

import math

import torch
from torch import Tensor


def hide_future(scores: Tensor) -> Tensor:
    """(T, T) → (T, T)."""
    raise NotImplementedError
