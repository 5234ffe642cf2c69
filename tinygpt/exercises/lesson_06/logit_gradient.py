"""The gradient of the cross-entropy with respect to the logits, by hand.

The loss is ln Σ exp(logit) − logit[target]. By the chain rule, the derivative of the first term with respect to logit j
is exp(logit j) / Σ exp(logit): the probability of j. That of the second term is −1 for the target and 0 for all
others. Do not use `backward()`.

    logit_gradient(tensor([0.0, 0.0]), 1) → tensor([0.5, -0.5])
"""

import torch
from torch import Tensor


def logit_gradient(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the target token → (V,)."""
    raise NotImplementedError
