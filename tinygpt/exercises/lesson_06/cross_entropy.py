"""How surprised the model is: −ln of the probability that it gave to the target token.

The logits are V numbers of one position. softmax makes probabilities of them: exp(logit), divided by the sum of all
exp(logit). For the logits of `test`, exp overflows (above 88 it is infinite): only differences of logits count, so
subtract the highest logit from all of them first. And ln of a quotient is a difference, so no tiny number is needed:

    −ln p(target) = ln Σ exp(logit) − logit[target]          Σ: the sum over all V logits

    cross_entropy(tensor([0.0, 0.0]), 1) → tensor(0.6931)  # two that are equally likely: ln 2
"""

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the target token → the loss, in nats, a tensor of one number, ()."""
    raise NotImplementedError
