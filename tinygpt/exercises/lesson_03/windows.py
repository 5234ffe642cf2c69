"""Make the batch of a training step: windows of a long sequence of tokens.

The inputs of a window are the `length` tokens from `start` on. Its targets are the token after each of them: the same
window, shifted by one. Stack the windows of all starts (`torch.stack`), inputs and targets each into one tensor.

    windows(tensor([5, 6, 7, 8, 9]), [0, 2], 2) → (tensor([[5, 6], [7, 8]]), tensor([[6, 7], [8, 9]]))
"""

import torch
from torch import Tensor


def windows(tokens: Tensor, starts: list[int], length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each (number of starts, length), of tokens (number of tokens,)."""
    raise NotImplementedError
