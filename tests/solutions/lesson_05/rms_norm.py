from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (…, C), weight (C,) → (…, C)."""
    mean_square = (x**2).mean(dim=-1, keepdim=True)
    return x / (mean_square + eps).sqrt() * weight
