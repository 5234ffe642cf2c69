import torch
from torch import Tensor


def rotate(x: Tensor, position: int, theta: float) -> Tensor:
    """The vector x (D,), turned as for its position: (D,)."""
    half = len(x) // 2
    angles = position * theta ** (-2 * torch.arange(half) / len(x))
    cos, sin = angles.cos(), angles.sin()
    a, b = x[:half], x[half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin])
