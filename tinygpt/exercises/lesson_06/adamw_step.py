"""One step of AdamW, for one tensor of weights.

    mean   ← beta1 · mean   + (1 − beta1) · gradient            running mean of the gradient
    square ← beta2 · square + (1 − beta2) · gradient²           running mean of its square
    m = mean / (1 − beta1^step), s = square / (1 − beta2^step)  bias correction, since both began at zero
    weight ← weight · (1 − rate · decay) − rate · m / (√s + eps)

Step 1 is the first. All operations are elementwise; ← assigns a new value. Return new tensors; do not modify the
inputs. In the first step a weight moves by the rate, regardless of the size of its gradient:

    adamw_step(tensor([1.0]), tensor([0.5]), tensor([0.0]), tensor([0.0]), 1, 0.01, 0.0)[0] → tensor([0.99])
"""

import torch
from torch import Tensor


def adamw_step(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    rate: float,
    decay: float,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-10,
) -> tuple[Tensor, Tensor, Tensor]:
    """The new weight, mean and square, all of one shape."""
    raise NotImplementedError
