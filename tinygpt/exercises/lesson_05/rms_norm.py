"""RMSNorm: scale each vector to a root mean square of one.

Divide each vector by √(mean of its squares + eps), and multiply by the learned weights, one for each of the C numbers.
The mean is over the last dimension only, for each vector separately. (A shape that begins with … may have any number of
dimensions before the last: use dimension −1.)

    rms_norm(tensor([3.0, 4.0]), tensor([1.0, 1.0]), 0.0) → tensor([0.8485, 1.1314])  # divided by √12.5
"""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (…, C), weight (C,) → (…, C)."""
    raise NotImplementedError
