import torch
from torch import Tensor


def windows(tokens: Tensor, starts: list[int], length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each (number of starts, length), of tokens (number of tokens,)."""
    inputs = torch.stack([tokens[start : start + length] for start in starts])
    targets = torch.stack([tokens[start + 1 : start + length + 1] for start in starts])
    return inputs, targets
