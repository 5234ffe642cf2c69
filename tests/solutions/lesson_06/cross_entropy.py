from torch import Tensor


def cross_entropy(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the token that came → the loss, in nats, a tensor of one number, ()."""
    shifted = logits - logits.max()
    return shifted.exp().sum().log() - shifted[target]
