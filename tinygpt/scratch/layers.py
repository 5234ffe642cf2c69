"""Operations on each vector alone: linear layers, softmax, norms, activation functions, dropout.

The functions take tensors of any shape (…, C) and act on the last dimension. The modules `Linear`, `Norm` and `MLP`
hold their learned parameters (embedding.py explains nn.Module). Left out: gradients, which autograd computes
(backward.py does it by hand).
"""

import math

import torch
from torch import Tensor, nn

from tinygpt.model.gpt import GPTConfig


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # (…, inputs) → (…, outputs)
    """x Wᵀ + b: each output is a weighted sum of all inputs. weight (outputs, inputs), bias (outputs,)."""
    y = x @ weight.T  # (…, inputs) @ (inputs, outputs)
    return y if bias is None else y + bias


def softmax(x: Tensor) -> Tensor:  # (…, n) → (…, n)
    """exp(x) / Σ exp(x): positive numbers that sum to one; adding 1 to an x makes its weight e times as large.

    In float32 exp overflows beyond 88. The result depends only on differences between the x, so the largest is
    subtracted first; then exp(0) = 1 is the largest. An x of −∞ gets weight 0.
    """
    exponentials = (x - x.amax(dim=-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:  # (…, C) → (…, C)
    """Scale each vector to mean 0 and variance 1, then apply a learned scale and shift (Ba et al. 2016).

    weight, bias: (C,). Without a norm the scale of activations can grow or shrink from block to block, and training
    becomes unstable. eps prevents division by zero if all numbers are equal.
    """
    centred = x - x.mean(dim=-1, keepdim=True)  # (…, C) − (…, 1)
    variance = (centred**2).mean(dim=-1, keepdim=True)  # (…, 1); divided by C, not C − 1
    y = centred / (variance + eps).sqrt() * weight
    return y if bias is None else y + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:  # (…, C) → (…, C)
    """Scale each vector to a root mean square of 1, then apply a learned scale, weight (C,).

    Works as well as LayerNorm, and is simpler (Zhang & Sennrich 2019).
    """
    mean_square = (x**2).mean(dim=-1, keepdim=True)  # (…, 1)
    return x / (mean_square + eps).sqrt() * weight


def gelu(x: Tensor) -> Tensor:  # any shape, elementwise
    """x · Φ(x), where Φ is the normal distribution's cumulative distribution function (Hendrycks & Gimpel 2016).

    A smooth form of max(0, x). Without a non-linear function between them, two matrices would equal a single one. This
    is the paper's tanh approximation, with which GPT-2 was trained.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_exact(x: Tensor) -> Tensor:  # any shape, elementwise
    """GELU without approximation, by the error function; it differs from `gelu` by at most 0.0005."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def silu(x: Tensor) -> Tensor:  # any shape, elementwise
    """x · sigmoid(x), where sigmoid(x) = 1 / (1 + exp(−x)): similar to GELU, and from the same paper."""
    return x * torch.sigmoid(x)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:  # any shape, elementwise
    """In training, set a random fraction p of the numbers to zero, so that the model relies on none (Srivastava 2014).

    The others are multiplied by 1 / (1 − p), which preserves the expected sum. Outside training, x is unchanged.
    """
    if not training or p == 0:
        return x
    mask = torch.rand_like(x) >= p  # False for the numbers that are dropped
    return x * mask / (1 - p)


class Linear(nn.Module):
    """A linear layer: weight (outputs, inputs), and optionally a bias (outputs,)."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (…, inputs) → (…, outputs)
        return linear(x, self.weight, self.bias)


class Norm(nn.Module):
    """LayerNorm or RMSNorm with a learned scale (width,); LayerNorm also with a shift if the model has biases."""

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
    """Project each vector to a larger width, apply an activation function, project back.

    Much of a model's knowledge is stored here (Geva et al. 2021). GPT-2's activation is GELU, exact or approximated.
    SwiGLU (Shazeer 2020) projects twice and multiplies one projection by SiLU of the other.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = Linear(config.n_embd, config.hidden, config.bias) if config.mlp == "swiglu" else None
        self.up = Linear(config.n_embd, config.hidden, config.bias)
        self.activation = gelu if config.mlp == "gelu" else gelu_exact
        self.down = Linear(config.hidden, config.n_embd, config.bias)

    def forward(self, x: Tensor) -> Tensor:  # (…, C) → (…, C)
        hidden = self.up(x)  # (…, hidden)
        hidden = self.activation(hidden) if self.gate is None else silu(self.gate(x)) * hidden
        return self.down(hidden)  # (…, C)
