"""SwiGLU, the MLP of a modern block: two projections up, one gating the other, and one down.

With the activation SiLU, a(x) = x · sigmoid(x):

    down · ( a(gate · x) × (up · x) )        × is elementwise

Matrices have PyTorch's layout, (outputs, inputs), so "matrix · x" is written x @ matrix.T.
sigmoid(z) is 1 / (1 + exp(−z)): near 0 for very negative z, near 1 for large z. `z.sigmoid()` computes it.

    swiglu(tensor([1.0]), tensor([[2.0]]), tensor([[3.0]]), tensor([[1.0]])) → tensor([5.2848])  # 2 · sigmoid(2) · 3
"""

import torch
from torch import Tensor


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """x (…, C), gate and up (hidden, C), down (C, hidden) → (…, C)."""
    raise NotImplementedError
