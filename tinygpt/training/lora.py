"""LoRA: train low-rank changes to a frozen model (Hu et al. 2021).

A matrix W that was learned on much text needs only a change of low rank to suit a little more of it: W + (alpha /
rank) · B·A, where A squeezes the input into `rank` numbers and B spreads them out again. Only A and B learn. `adapt`
puts them into every matrix of the stack (as peft's "all-linear" does; embeddings, head, norms and biases stay),
`merged` adds them up to a plain model, and `to_peft` says them in peft's names.

B starts at zero, so a run begins at exactly the model that it adapts. What is saved is the memory of the optimizer and
of the gradients, and A and B are small to hand on; a step takes about as long. Left out: dropout of its own, ranks
that differ from matrix to matrix, quantised weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model.gpt import GPT

A, B = ".lora_a", ".lora_b"


class Adapted(nn.Linear):
    """A linear layer whose matrix is frozen, with its change beside it: x → x Wᵀ + b + scale · (x Aᵀ) Bᵀ."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        a = torch.empty(rank, self.in_features).normal_(0.0, 1 / math.sqrt(self.in_features), generator=generator)
        self.lora_a = nn.Parameter(a.to(linear.weight.device))  # (rank, inputs)
        self.lora_b = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))  # (outputs, rank)

    def forward(self, x: Tensor) -> Tensor:  # (..., inputs) → (..., outputs)
        change = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return F.linear(x, self.weight, self.bias) + self.scale * change


def adapt(model: GPT, rank: int, alpha: float, generator: torch.Generator) -> None:
    """Freeze a model, and put a change of rank `rank` ≥ 1 beside every matrix of its stack; A is drawn on the CPU."""
    model.requires_grad_(False)
    for module in list(model.blocks.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, Adapted(layer, rank, alpha, generator))


def learned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights of an adapted model: each A, (rank, inputs), and each B, (outputs, rank)."""
    return {name: weight for name, weight in weights.items() if name.endswith((A, B))}


def added(model: GPT) -> int:
    """The number of parameters that `adapt` added; 0 for a plain model."""
    return sum(weight.numel() for weight in learned(dict(model.named_parameters())).values())


def merged(weights: dict[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """The weights of an adapted model, by parameter name → those of a plain one that computes the same.

    Each of its parameter's shape: a matrix (outputs, inputs), its A (rank, inputs), its B (outputs, rank).
    """
    small = learned(weights)
    plain = {name: weight for name, weight in weights.items() if name not in small}
    for name in changes(weights):
        change = weights[name + B] @ weights[name + A]  # (outputs, rank) (rank, inputs)
        plain[f"{name}.weight"] = plain[f"{name}.weight"] + (alpha / rank) * change
    return plain


def changes(weights: dict[str, Tensor]) -> list[str]:
    """The layers that have a change, by the name of their module: those with an A, (rank, inputs), in `weights`."""
    return [name.removesuffix(A) for name in weights if name.endswith(A)]
