import torch
from torch import Tensor


def logit_gradient(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the token that came → (V,)."""
    gradient = torch.softmax(logits, dim=-1)
    gradient[target] -= 1
    return gradient
