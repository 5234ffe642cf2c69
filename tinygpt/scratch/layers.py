"""Operations on each vector alone: linear layers, softmax, norms, activation functions, dropout.

Functions on tensors of any shape (…, C), which leave all but the last dimension as it is; below them `Linear`, `Norm`
and `MLP`, which hold the learned numbers that the functions need (nn.Module keeps the books, as embedding.py says).
Left out: nothing that the model uses; autograd finds the gradients (backward.py does so by hand).
"""

import math

import torch
from torch import Tensor, nn

from tinygpt.model.gpt import GPTConfig


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # (…, inputs) → (…, outputs)
    """Each output is a weighted sum of all inputs: weight (outputs, inputs), bias (outputs,)."""
    y = x @ weight.T  # (…, inputs) @ (inputs, outputs)
    return y if bias is None else y + bias


def softmax(x: Tensor) -> Tensor:  # (…, n) → (…, n)
    """Numbers to weights: positive, summing to one, and e times as large for a number that is 1 higher.

    exp overflows beyond 88 in float32. The weights depend on differences alone, so the highest number is subtracted
    first: then the largest number is exp(0) = 1. A number of −∞ gets the weight 0.
    """
    exponentials = (x - x.amax(dim=-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:  # (…, C) → (…, C)
    """Bring each vector to mean 0 and variance 1, then scale and shift by what was learned (Ba et al. 2016).

    Without a norm the sizes of vectors grow or shrink from block to block, and learning goes astray. eps keeps the
    division finite where all numbers are equal.
    """
    centred = x - x.mean(dim=-1, keepdim=True)  # (…, 1) is subtracted from (…, C)
    variance = (centred**2).mean(dim=-1, keepdim=True)  # (…, 1); divided by C, not C − 1
    y = centred / (variance + eps).sqrt() * weight
    return y if bias is None else y + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:  # (…, C) → (…, C)
    """Bring each vector to a root mean square of 1, then scale: as good, and simpler (Zhang & Sennrich 2019)."""
    mean_square = (x**2).mean(dim=-1, keepdim=True)  # (…, 1)
    return x / (mean_square + eps).sqrt() * weight


def gelu(x: Tensor) -> Tensor:
    """x times the share of a normal distribution that lies below x: a soft switch (Hendrycks & Gimpel 2016).

    Between two matrices there must be a bend, or both would be one matrix. This is the paper's approximation by tanh,
    which GPT-2 was trained with.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_exact(x: Tensor) -> Tensor:
    """GELU itself, whose share of the normal distribution is written with the error function; at most 0.0005 away."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x), a switch of nearly the same form, from the same paper; sigmoid(x) is 1 / (1 + exp(−x))."""
    return x * torch.sigmoid(x)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """While training, set a random fraction p of the numbers to zero, so that none is relied on (Srivastava 2014).

    The others grow by 1 / (1 − p), so that the sum stays what it was on average; when the model is used, nothing
    happens.
    """
    if not training or p == 0:
        return x
    keep = torch.rand_like(x) >= p  # true, and false in the places that are dropped
    return x * keep / (1 - p)


class Linear(nn.Module):
    """A learned matrix, and perhaps a bias."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (…, inputs) → (…, outputs)
        return linear(x, self.weight, self.bias)


class Norm(nn.Module):
    """One of the two norms, with its learned scale; LayerNorm's shift where the model has biases."""

    def __init__(self, width: int, config: GPTConfig, kind: str | None = None) -> None:
        super().__init__()
        self.kind, self.eps = kind or config.norm, config.norm_eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if config.bias and self.kind == "layernorm" else None

    def forward(self, x: Tensor) -> Tensor:  # (…, width) → (…, width)
        if self.kind == "layernorm":
            return layer_norm(x, self.weight, self.bias, self.eps)
        return rms_norm(x, self.weight, self.eps)


class MLP(nn.Module):
    """Widen each vector, bend it, narrow it again; where a model keeps much of what it knows (Geva et al. 2021).

    GPT-2's bends with GELU, in one of its two forms. SwiGLU (Shazeer 2020) widens twice, and lets SiLU of one gate the
    other.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = Linear(config.n_embd, config.hidden, config.bias) if config.mlp == "swiglu" else None
        self.up = Linear(config.n_embd, config.hidden, config.bias)
        self.bend = gelu if config.mlp == "gelu" else gelu_exact
        self.down = Linear(config.hidden, config.n_embd, config.bias)

    def forward(self, x: Tensor) -> Tensor:  # (…, C) → (…, C)
        wide = self.up(x)  # (…, hidden)
        wide = self.bend(wide) if self.gate is None else silu(self.gate(x)) * wide
        return self.down(wide)  # (…, C)
