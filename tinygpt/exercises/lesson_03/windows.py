"""Cut the batch of a training step out of a long row of tokens.

A window that begins at `start` is the `length` tokens from there on: the inputs. Its targets are what should be guessed
after each of them: the same tokens, one further on. Stack the windows of all starts
(`torch.stack`), the inputs and the targets each into one tensor.

    windows(tensor([5, 6, 7, 8, 9]), [0, 2], 2) → (tensor([[5, 6], [7, 8]]), tensor([[6, 7], [8, 9]]))
"""

import torch
from torch import Tensor


def windows(tokens: Tensor, starts: list[int], length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each (number of starts, length), of tokens (number of tokens,)."""
    raise NotImplementedError
