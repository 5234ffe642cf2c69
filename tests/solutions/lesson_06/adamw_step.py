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
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    m = mean / (1 - beta1**step)
    s = square / (1 - beta2**step)
    return weight * (1 - rate * decay) - rate * m / (s.sqrt() + eps), mean, square
