"""The gradient of the cross-entropy, by hand: how the loss would change with each score.

The loss is ln Σ exp(score) − score[target]. By the chain rule, the first part changes with score j as
exp(score j) / Σ exp(score), which is p j, the probability of j; the second changes by −1 with the target's score, and
with no other. So all scores are pushed down by their probability, and the target's up by one. Without `backward()`.

    logit_gradient(tensor([0.0, 0.0]), 1) → tensor([0.5, -0.5])
"""

import torch
from torch import Tensor


def logit_gradient(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the token that came → (V,)."""
    raise NotImplementedError
