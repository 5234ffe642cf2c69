import torch
from torch import Tensor


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """x (…, C), gate and up (hidden, C), down (C, hidden) → (…, C)."""
    g = x @ gate.T
    return (g * torch.sigmoid(g) * (x @ up.T)) @ down.T
