"""Cross-entropy of a model's predictions: as one number to train on, or token by token to evaluate."""

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # as a target: a token that does not count, as in PyTorch and transformers


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """−ln p(target), in nats, in fp32: (B, T, V), (B, T) → a scalar, or (B·T,) for reduction "none".

    The loss of a target that is IGNORED is 0, and so is its gradient.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def token_losses(logits: Tensor, targets: Tensor) -> np.ndarray:
    """The cross-entropy of each token: (B, T, V), (B, T) → float64 (B, T), nats."""
    losses = cross_entropy(logits, targets, "none").view(targets.shape)
    values: np.ndarray = losses.cpu().double().numpy()  # to the CPU first, since MPS has no float64
    return values


def surprisal(logits: Tensor, targets: Tensor) -> np.ndarray:
    """Surprisal of each token, −log₂ of its probability: (N, V), (N,) → float64 (N,), bits."""
    bits: np.ndarray = token_losses(logits[None], targets[None])[0] / math.log(2)
    return bits
