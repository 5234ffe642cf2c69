"""LoRA: train low-rank changes to a frozen model (Hu et al. 2021).

Fine-tuning a pretrained matrix W needs only a low-rank change: W + (alpha / rank) · B·A, where A projects the input to
`rank` numbers and B projects them to the output. Only A and B are trained. `adapt` adds them to every matrix of the
blocks (peft's "all-linear"; embeddings, head, norms and biases stay frozen), and `merged` adds the changes to the
weights of a plain model. export/peft.py exports them in peft's format.

Tokens that the base lacked, such as role tokens, all begin at one mean, and would stay alike; so their rows of
embedding and head are trained as well (peft's trainable_token_indices).

B and the changes of rows start at zero, so training starts at exactly the base model. LoRA saves the memory of
gradients and optimizer state, and what is trained makes a small file; a step takes about as long. Left out: dropout on
A's input, ranks that differ between matrices, quantised weights.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model.gpt import GPT

A, B, ROWS = ".lora_a", ".lora_b", ".lora_rows"


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


class AdaptedEmbedding(nn.Embedding):
    """A frozen embedding with a trained change to the rows of N new tokens, whose ids are int64 (N,)."""

    def __init__(self, embedding: nn.Embedding, new_tokens: Tensor) -> None:
        super().__init__(embedding.num_embeddings, embedding.embedding_dim, _weight=embedding.weight)
        self.weight = embedding.weight  # the same parameter, which a tied head shares
        self.register_buffer("new_tokens", new_tokens, persistent=False)  # int64 (N,)
        self.lora_rows = nn.Parameter(self.weight.new_zeros(len(new_tokens), self.embedding_dim))  # (N, C)

    def forward(self, tokens: Tensor) -> Tensor:  # int64 (B, T) → (B, T, C)
        which = torch.eq(tokens[..., None], self.get_buffer("new_tokens")).to(self.lora_rows.dtype)  # (B, T, N)
        return F.embedding(tokens, self.weight) + which @ self.lora_rows


class AdaptedHead(nn.Linear):
    """A frozen head with a trained change to the rows of N new tokens: that of the embedding if they are tied."""

    def __init__(self, head: nn.Linear, embedding: AdaptedEmbedding) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight, self.bias = head.weight, head.bias
        self.register_buffer("new_tokens", embedding.get_buffer("new_tokens"), persistent=False)  # int64 (N,)
        tied = head.weight is embedding.weight
        self.lora_rows = embedding.lora_rows if tied else nn.Parameter(torch.zeros_like(embedding.lora_rows))  # (N, C)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) → (B, T, V)
        logits = F.linear(x, self.weight)
        return logits.index_add(-1, self.get_buffer("new_tokens"), F.linear(x, self.lora_rows))


def adapt(model: GPT, rank: int, alpha: float, generator: torch.Generator, new_tokens: Sequence[int] = ()) -> None:
    """Freeze a model; add a trainable change of rank `rank` ≥ 1 to every matrix of its blocks; draw A on the CPU.

    new_tokens: ids whose rows of embedding and head are trained, too.
    """
    model.requires_grad_(False)
    if new_tokens:
        ids = torch.tensor(new_tokens, device=model.token_embedding.weight.device)
        model.token_embedding = AdaptedEmbedding(model.token_embedding, ids)
        model.head = AdaptedHead(model.head, model.token_embedding)
    for module in list(model.blocks.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, Adapted(layer, rank, alpha, generator))


def learned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights of an adapted model by name: each A, (rank, inputs), B, (outputs, rank), and change of rows,
    (N, C).
    """
    return {name: weight for name, weight in weights.items() if name.endswith((A, B, ROWS))}


def added(model: GPT) -> int:
    """The number of parameters that `adapt` added; 0 for a plain model."""
    return sum(weight.numel() for weight in learned(dict(model.named_parameters())).values())


def merged(weights: dict[str, Tensor], rank: int, alpha: float, new_tokens: Sequence[int] = ()) -> dict[str, Tensor]:
    """The weights of an adapted model, by parameter name → those of a plain model that computes the same.

    Shapes: a matrix (outputs, inputs), its A (rank, inputs), its B (outputs, rank). new_tokens: as for `adapt`.
    """
    low_rank = learned(weights)
    plain = {name: weight for name, weight in weights.items() if name not in low_rank}
    for name in changes(weights):
        change = weights[name + B] @ weights[name + A]  # (outputs, rank) (rank, inputs)
        plain[f"{name}.weight"] = plain[f"{name}.weight"] + (alpha / rank) * change
    for name in (name for name in weights if name.endswith(ROWS)):
        whole = f"{name.removesuffix(ROWS)}.weight"  # (V, C)
        plain[whole] = plain[whole].index_add(0, torch.tensor(new_tokens), weights[name])
    return plain


def changes(weights: dict[str, Tensor]) -> list[str]:
    """Module names of the layers with a change: those that have an A, (rank, inputs), in `weights`."""
    return [name.removesuffix(A) for name in weights if name.endswith(A)]
