"""Bring each vector to a root mean square of one.

Divide each vector by √(mean of its squares + eps), and multiply by the learned weights, one for each of the C numbers.
The mean is over the last dimension alone: each vector for itself, however many there are.
"""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (…, C), weight (C,) → (…, C)."""
    raise NotImplementedError
