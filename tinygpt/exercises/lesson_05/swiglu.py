"""The MLP of a modern block: widen twice, let one gate the other, narrow again.

With a(x) = x · sigmoid(x), the switch that is called SiLU:

    down · ( a(gate · x) × (up · x) )        × is number by number

Matrices are kept as PyTorch keeps them, (outputs, inputs), so that "matrix · x" is written x @ matrix.T here.
sigmoid(z) is 1 / (1 + exp(−z)): near 0 for very negative z, near 1 for large z. `z.sigmoid()` computes it.

    swiglu(tensor([1.0]), tensor([[2.0]]), tensor([[3.0]]), tensor([[1.0]])) → tensor([5.2848])  # 2 · sigmoid(2) · 3
"""

import torch
from torch import Tensor


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """x (…, C), gate and up (hidden, C), down (C, hidden) → (…, C)."""
    raise NotImplementedError
