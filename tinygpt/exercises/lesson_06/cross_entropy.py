"""Cross-entropy: −ln of the probability that the model gave to the target token.

The logits are V numbers for one position. softmax turns them into probabilities: exp(logit), divided by the sum of all
exp(logit). exp overflows for large logits (above 88 it is infinite), as in the test. Only differences of logits matter,
so subtract the highest logit from all of them first. The ln of a quotient is a difference, which avoids tiny numbers:

    −ln p(target) = ln Σ exp(logit) − logit[target]          Σ: the sum over all V logits

    cross_entropy(tensor([0.0, 0.0]), 1) → tensor(0.6931)  # two that are equally likely: ln 2
"""

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, target: int) -> Tensor:
    """logits (V,), the target token → the loss, in nats, a tensor of one number, ()."""
    raise NotImplementedError
