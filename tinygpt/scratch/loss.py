"""The error of a model's predictions, as one number to minimise.

`cross_entropy(logits, targets)` → nats per token, the loss that training minimises; `perplexity` and `bits_per_byte`
express it in units that are easier to interpret. Left out: label smoothing. chat.py has the same with a mask.
"""

import math

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:  # (…, V) → (…, V)
    """ln softmax(logits) = logits − ln Σ exp(logits), computed without overflow or underflow.

    In float32 exp overflows beyond 88, so the largest logit is subtracted from all; softmax depends only on
    differences. And softmax rounds very small probabilities to 0, whose logarithm is −∞. Here no probability is
    computed, so a log-probability of −200 stays −200.
    """
    shifted = logits - logits.amax(dim=-1, keepdim=True)  # the largest is now 0
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()  # the sum is between 1 and V


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """−ln p(target): the surprisal of the target token, in nats; computed in float32.

    logits (B, T, V), targets int64 (B, T) → a scalar for the reductions "mean" and "sum", (B·T,) for "none".
    It is 0 if the target had probability 1, ln V if all V tokens were equally likely, and unbounded as the probability
    goes to 0. Its mean is lowest for the true probabilities, and then equals the text's entropy (Shannon 1948).
    """
    V = logits.shape[-1]
    log_probabilities = log_softmax(logits.float().reshape(-1, V))  # (B·T, V)
    rows = torch.arange(len(log_probabilities), device=logits.device)  # (B·T,)
    losses = -log_probabilities[rows, targets.reshape(-1)]  # (B·T,): each row's entry for its target
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def perplexity(loss: float) -> float:
    """exp(loss in nats per token): the number of equally likely tokens with the same loss."""
    return math.exp(loss)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits per byte of a text. nats: the loss summed over all its tokens; text_bytes: its size.

    Nats per token cannot be compared between tokenizers: longer tokens are harder to predict, but fewer. The bytes are
    the same for all. A nat is 1 / ln 2 = 1.44 bits. Arithmetic coding with the model's predictions would compress the
    text to this size, since it needs −log₂ p(token) bits for each token (Witten et al. 1987).
    """
    return nats / math.log(2) / text_bytes
