"""Where gradients come from: two backward passes by hand, without autograd.

`output_layer_backward` computes the gradients of the loss for the last vectors and the head's weights;
`causal_head_backward` those of one attention head (attention.py, step 3). Both use the chain rule: if the loss L
depends on z, and z on x, then dL/dx = dL/dz · dz/dx. Here dz is short for dL/dz, the gradient of the loss for z; it has
the shape of z. Two rules suffice for most steps.

    1.  z = x W       →  dx = dz Wᵀ,  dW = xᵀ dz
    2.  x used twice  →  dx = the sum of the gradients of both uses; query, key and value all use x

Left out: the other layers, to which the same rules apply. For training, autograd does all this.
"""

import math

import torch
from torch import Tensor

from tinygpt.scratch.attention import Head, causal_mask
from tinygpt.scratch.layers import softmax
from tinygpt.scratch.loss import log_softmax


def output_layer(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss of N vectors: x (N, C), the head's weight (V, C), targets int64 (N,) → mean cross-entropy."""
    logits = x @ weight.T  # (N, C) @ (C, V) → (N, V)
    return -log_softmax(logits)[torch.arange(len(x)), targets].mean()


def output_layer_backward(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `output_layer`: dx (N, C), dweight (V, C)."""
    N, V = len(x), len(weight)
    logits = x @ weight.T  # (N, V)

    # One row's loss is −logit[target] + ln Σ exp(logit). Its derivative for logit[j] has two terms: −1 if j is the
    # target, and exp(logit[j]) / Σ exp(logit), which is softmax. So dlogits = p − one-hot: a step against the gradient
    # raises the target's logit and lowers the others. The mean over N rows divides by N.
    one_hot = (targets[:, None] == torch.arange(V)).to(x.dtype)  # (N, V)
    dlogits = (softmax(logits) - one_hot) / N  # (N, V)

    # Rule 1 for logits = x weightᵀ, where W = weightᵀ: dweight = dWᵀ = (xᵀ dlogits)ᵀ = dlogitsᵀ x.
    dx = dlogits @ weight  # (N, V) @ (V, C) → (N, C)
    dweight = dlogits.T @ x  # (V, N) @ (N, C) → (V, C)
    return dx, dweight


def softmax_backward(weights: Tensor, dweights: Tensor) -> Tensor:  # (T, T), (T, T) → (T, T)
    """The gradient for the attention scores, given that for the attention weights; each row separately.

    With w[i] = exp(score[i]) / Σ exp, the derivatives are dw[i]/dscore[j] = w[i] · ((1 if i = j else 0) − w[j]). Summed
    over i, with d for the gradient of w: dscore[j] = w[j] · d[j] − w[j] · Σ w[i] d[i], or w[j] times the difference
    between d[j] and the average of d weighted by w. Where a weight is 0, so is the gradient.
    """
    average = (weights * dweights).sum(dim=-1, keepdim=True)  # (T, 1)
    return weights * (dweights - average)


def causal_head_backward(x: Tensor, head: Head, doutput: Tensor) -> tuple[Tensor, Head]:
    """The gradients of `causal_head(x, head)`, x (T, C), given that of its output, doutput (T, D).

    Returns dx (T, C) and dhead, the gradients of the three matrices, (C, D) each. The forward pass comes first, since
    the rules need its intermediate results. Storing these is why training takes more memory than generation.
    """
    Wq, Wk, Wv = head  # (C, D) each
    q, k, v = x @ Wq, x @ Wk, x @ Wv  # (T, D) each
    D = q.shape[-1]
    weights = softmax(causal_mask(q @ k.T / math.sqrt(D)))  # (T, T)

    # Rule 1 for output = weights v, with weights for x and v for W.
    dweights = doutput @ v.T  # (T, D) @ (D, T) → (T, T)
    dv = weights.T @ doutput  # (T, T) @ (T, D) → (T, D): a sum over all tokens that attended to this one

    # The mask needs no rule of its own: a score of −∞ has a weight of 0, and so a gradient of 0.
    dscores = softmax_backward(weights, dweights)  # (T, T)

    # Rule 1 for scores = q kᵀ / √D, with the factor 1/√D in both gradients.
    dq = dscores @ k / math.sqrt(D)  # (T, T) @ (T, D) → (T, D)
    dk = dscores.T @ q / math.sqrt(D)  # (T, T) @ (T, D) → (T, D)

    # Rule 1 for q = x Wq, k = x Wk and v = x Wv; rule 2 for x, which all three use.
    dx = dq @ Wq.T + dk @ Wk.T + dv @ Wv.T  # (T, D) @ (D, C) → (T, C)
    dhead = (x.T @ dq, x.T @ dk, x.T @ dv)  # (C, T) @ (T, D) → (C, D) each
    return dx, dhead
