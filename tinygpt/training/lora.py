"""LoRA: train low-rank changes to a frozen model (Hu et al. 2021).

Fine-tuning a pretrained matrix W needs only a low-rank change: W + (alpha / rank) · B·A, where A projects the input to
`rank` numbers and B projects them to the output. Only A and B are trained. `adapt` adds them to every matrix of the
blocks (peft's "all-linear"; embeddings, head, norms and biases stay frozen), and `merged` adds the changes to the
weights of a plain model. export/peft.py exports them in peft's format.

B starts at zero, so training starts at exactly the base model. LoRA saves the memory of gradients and optimizer state,
and A and B make a small file; a step takes about as long. Left out: dropout on A's input, ranks that differ between
matrices, quantised weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model.gpt import GPT

A, B = ".lora_a", ".lora_b"


class Adapted(nn.Linear):
    """A linear layer with a frozen matrix and a low-rank change: x → x Wᵀ + b + scale · (x Aᵀ) Bᵀ."""

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
    """Freeze a model; add a trainable change of rank `rank` ≥ 1 to every matrix of its blocks; draw A on the CPU."""
    model.requires_grad_(False)
    for module in list(model.blocks.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, Adapted(layer, rank, alpha, generator))


def learned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights of an adapted model by name: each A, (rank, inputs), and each B, (outputs, rank)."""
    return {name: weight for name, weight in weights.items() if name.endswith((A, B))}


def added(model: GPT) -> int:
    """The number of parameters that `adapt` added; 0 for a plain model."""
    return sum(weight.numel() for weight in learned(dict(model.named_parameters())).values())


def merged(weights: dict[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """The weights of an adapted model, by parameter name → those of a plain model that computes the same.

    Shapes: a matrix (outputs, inputs), its A (rank, inputs), its B (outputs, rank).
    """
    low_rank = learned(weights)
    plain = {name: weight for name, weight in weights.items() if name not in low_rank}
    for name in changes(weights):
        change = weights[name + B] @ weights[name + A]  # (outputs, rank) (rank, inputs)
        plain[f"{name}.weight"] = plain[f"{name}.weight"] + (alpha / rank) * change
    return plain


def changes(weights: dict[str, Tensor]) -> list[str]:
    """Module names of the layers with a change: those that have an A, (rank, inputs), in `weights`."""
    return [name.removesuffix(A) for name in weights if name.endswith(A)]
