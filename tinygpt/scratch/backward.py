"""Where gradients come from: two backward passes by hand, without autograd.

`output_layer_backward` goes from the loss back to the last vectors and the head's weights; `causal_head_backward` goes
through one head of attention (attention.py, step 3). All that is needed is the chain rule: if the loss L depends on z,
and z on x, then dL/dx = dL/dz · dz/dx. Write dz for dL/dz, "how the loss would change with z": it has the shape of z.
Two rules do most of the work.

    z = x W      →  dx = dz Wᵀ,  dW = xᵀ dz     a weight counts as much as what it multiplied
    x used twice →  dx = the sum of both ways   here: query, key and value all read x

Left out: the other layers, to which the same rules apply, and which autograd does for the model.
"""

import math

import torch
from torch import Tensor

from tinygpt.scratch.attention import Head, causal_mask
from tinygpt.scratch.layers import softmax
from tinygpt.scratch.loss import log_softmax


def output_layer(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss of N vectors: x (N, C), the head's weight (V, C), targets int64 (N,) → the mean cross-entropy."""
    logits = x @ weight.T  # (N, C) @ (C, V) → (N, V)
    return -log_softmax(logits)[torch.arange(len(x)), targets].mean()


def output_layer_backward(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `output_layer`: dx (N, C), dweight (V, C)."""
    N, V = len(x), len(weight)
    logits = x @ weight.T  # (N, V)

    # One row's loss is −logit[target] + ln Σ exp(logit). By logit[j], the first part gives −1 where j is the target;
    # the second gives exp(logit[j]) / Σ exp(logit), which is softmax: dlogits = p − one-hot. The target is to rise and
    # all others to fall, by as much in sum. The mean over N rows divides by N.
    one_hot = (targets[:, None] == torch.arange(V)).to(x.dtype)  # (N, V)
    dlogits = (softmax(logits) - one_hot) / N  # (N, V)

    # logits = x weightᵀ is the first rule, with W = weightᵀ; so dWᵀ = (xᵀ dlogits)ᵀ = dlogitsᵀ x.
    dx = dlogits @ weight  # (N, V) @ (V, C) → (N, C)
    dweight = dlogits.T @ x  # (V, N) @ (N, C) → (V, C)
    return dx, dweight


def softmax_backward(weights: Tensor, dweights: Tensor) -> Tensor:  # (T, T), (T, T) → (T, T)
    """The gradient of the scores, from that of the weights: row by row.

    w[i] = exp(score[i]) / Σ exp. Raising score[j] raises w[j] and lowers all weights in proportion:
    dw[i]/dscore[j] = w[i] · ((1 if i = j else 0) − w[j]). Summed over i, with d for the gradient of w:
    dscore[j] = w[j] · d[j] − w[j] · Σ w[i] d[i] = w[j] · (d[j] − the mean of d under w). A weight of 0 gets none.
    """
    average = (weights * dweights).sum(dim=-1, keepdim=True)  # (T, 1)
    return weights * (dweights - average)


def causal_head_backward(x: Tensor, head: Head, dfound: Tensor) -> tuple[Tensor, Head]:
    """The gradients of `causal_head(x, head)`, from that of what it found, dfound (T, D): dx (T, C), dhead.

    First forward again, since every rule needs what was there; that is why training takes more memory than use.
    """
    Wq, Wk, Wv = head  # (C, D) each
    q, k, v = x @ Wq, x @ Wk, x @ Wv  # (T, D) each
    D = q.shape[-1]
    weights = softmax(causal_mask(q @ k.T / math.sqrt(D)))  # (T, T)

    # found = weights v: the first rule, with weights for x and v for W.
    dweights = dfound @ v.T  # (T, D) @ (D, T) → (T, T)
    dv = weights.T @ dfound  # (T, T) @ (T, D) → (T, D): each token receives from all that attended to it

    # The mask needs no rule of its own: a score of −∞ had a weight of 0, and so gets a gradient of 0.
    dscores = softmax_backward(weights, dweights)  # (T, T)

    # scores = q kᵀ / √D: the first rule twice over, once for each factor, and the factor 1/√D goes along.
    dq = dscores @ k / math.sqrt(D)  # (T, T) @ (T, D) → (T, D)
    dk = dscores.T @ q / math.sqrt(D)  # (T, T) @ (T, D) → (T, D)

    # q = x Wq and its sisters: the first rule, and for x, which all three read, the second.
    dx = dq @ Wq.T + dk @ Wk.T + dv @ Wv.T  # (T, D) @ (D, C) → (T, C)
    dhead = (x.T @ dq, x.T @ dk, x.T @ dv)  # (C, T) @ (T, D) → (C, D) each
    return dx, dhead
