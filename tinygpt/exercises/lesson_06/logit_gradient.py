"""The gradient of the cross-entropy, by hand: how the loss would change with each logit.

The loss is ln Σ exp(logit) − logit[target]. By the chain rule, the first part changes with logit j as
exp(logit j) / Σ exp(logit), which is p j, the probability of j; the second changes by −1 with the target's logit, and
with no other. So all logits are pushed down by their probability, and the target's up by one. Without `backward()`.

    logit_gradient(tensor([0.0, 0.0]), 1) → tensor([0.5, -0.5])
"""

import torch
from torch import Tensor


def logit_gradient(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the target token → (V,)."""
    raise NotImplementedError
