import torch
import torch.nn.functional as F
from torch import Tensor


def answer_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """logits (T, V), targets (T,) and mask (T,) → the loss in nats per counted token, a tensor of one number, ()."""
    losses = F.cross_entropy(logits, targets, reduction="none")  # (T,)
    return (losses * mask).sum() / torch.clamp(mask.sum(), min=1)
