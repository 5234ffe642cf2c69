"""One step of AdamW, for one tensor of weights.

    mean   ← beta1 · mean   + (1 − beta1) · gradient            where to go, averaged over steps
    square ← beta2 · square + (1 − beta2) · gradient²           how large gradients are here
    m = mean / (1 − beta1^step), s = square / (1 − beta2^step)  both began at zero: make up for it
    weight ← weight · (1 − rate · decay) − rate · m / (√s + eps)

Step 1 is the first. All is number by number, and ← means: the new value is. Give back new tensors; leave those that you
are given as they are. In the first step a weight moves by the rate, however large its gradient is:

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
