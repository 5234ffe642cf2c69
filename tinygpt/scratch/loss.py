"""How wrong a prediction was: one number to minimise.

`cross_entropy(logits, targets)` → nats per token, the loss that training minimises; `perplexity` and `bits_per_byte`
say the same in units that mean more to a reader. Left out: label smoothing, and tokens that do not count.
"""

import math

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:  # (…, V) → (…, V)
    """ln of softmax(logits), in one go.

    softmax = exp(logit) / sum of exp(logits), so its ln is logit − ln(sum of exp(logits)). Two things could go wrong.
    exp overflows beyond 88 in float32: so the highest logit is subtracted from all, which changes no difference between
    them, and differences are all that counts. And softmax rounds what is very unlikely to 0, of which the ln is −∞:
    here it is never computed, and −200 stays −200.
    """
    shifted = logits - logits.amax(dim=-1, keepdim=True)  # the highest is now 0
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()  # the sum is between 1 and V


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """−ln p(target): the surprisal of the target token, in nats; computed in float32.

    logits (B, T, V), targets int64 (B, T) → a scalar for the reductions "mean" and "sum", (B·T,) for "none".
    0 for a token that was certain; ln V for one of V that seemed all alike; without bound for one held impossible. On
    average it is lowest for a model that says the true probabilities, and is then the text's entropy (Shannon 1948).
    """
    V = logits.shape[-1]
    log_probabilities = log_softmax(logits.float().reshape(-1, V))  # (B·T, V)
    place = torch.arange(len(log_probabilities), device=logits.device)  # (B·T,)
    losses = -log_probabilities[place, targets.reshape(-1)]  # (B·T,): of each row the number at its target
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def perplexity(loss: float) -> float:
    """exp(nats per token): as unsure as if choosing among so many tokens, all equally likely."""
    return math.exp(loss)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """The loss summed over all tokens of a text, for each byte of it, in bits.

    Nats per token cannot be compared between tokenizers: longer tokens are harder to predict, and there are fewer of
    them. Bytes are the same for all. A nat is 1 / ln 2 = 1.44 bits. It is also what a compressor would need that wrote
    down each token in −log₂ p(token) bits, as arithmetic coding does (Witten et al. 1987).
    """
    return nats / math.log(2) / text_bytes
