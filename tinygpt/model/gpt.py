"""The GPT: tokens in, logits for the next token out.

Read it from top to bottom; later parts use earlier ones: configuration, norm, positions, attention, MLP, block, GPT.
`model(tokens)` → logits. Nothing here depends on training, sampling, files or devices; code that exists only for speed
is in kernels.py. For generation, generation/decoder.py computes the same with a KV cache. Sizes: B sequences in a
batch, T tokens in a sequence, C = n_embd, H heads, D = head_dim, V tokens in the vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model.kernels import causal_attention, dropout, rms_norm, to_autocast_dtype, zero_embedding

Positions = slice | Tensor  # of T tokens: a slice of T, or int64 (B, T) where sequences stand at unlike positions


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT: the `model` section of params.yaml, and the tokenizer's vocabulary size.

    Nothing is checked here: config.py checks params.yaml, and checkpoints/hf_names.py checks model folders.
    """

    vocab_size: int  # V, tokens
    n_layer: int  # blocks
    n_head: int  # H, query heads
    n_kv_head: int | None  # key and value heads, a divisor of n_head; None: n_head
    head_dim: int | None  # D, width of a head; None: n_embd / n_head
    n_embd: int  # C, width of the residual stream
    mlp_hidden: int | None  # width inside the MLP; None: see `hidden`
    context_length: int  # the most tokens that the model can attend to
    norm: Literal["rmsnorm", "layernorm"]
    norm_eps: float  # added to the mean square, or the variance, before the square root
    position: Literal["rope", "learned"]
    rope_theta: float  # the slowest pair of coordinates turns by about 1 / rope_theta radians a token
    mlp: Literal["swiglu", "gelu", "gelu_exact"]
    qk_norm: bool  # RMSNorm of each head's queries and keys
    bias: bool  # in linear layers and LayerNorm
    tie_embeddings: bool  # token embedding and head share one matrix
    dropout: float  # the fraction of activations set to zero in training, at least 0 and below 1

    @property
    def kv_heads(self) -> int:
        """The number of key and value heads."""
        return self.n_kv_head or self.n_head

    @property
    def head_width(self) -> int:
        """D, the width of a head."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def hidden(self) -> int:
        """Width inside the MLP: 4 × n_embd as in GPT-2; with SwiGLU's third matrix, 8/3 × n_embd costs the same."""
        if self.mlp_hidden:
            return self.mlp_hidden
        return 32 * math.ceil(8 * self.n_embd / 3 / 32) if self.mlp == "swiglu" else 4 * self.n_embd

    @property
    def gelu_form(self) -> Literal["tanh", "none"]:
        """The approximation of GELU, as PyTorch names it."""
        return "none" if self.mlp == "gelu_exact" else "tanh"


class Norm(nn.Module):
    """Rescale each vector to unit size, then by learned weights.

    LayerNorm (Ba et al. 2016) also subtracts the mean; RMSNorm (Zhang & Sennrich 2019) does not. Computed in the
    input's precision; the output has autocast's.
    """

    def __init__(self, width: int, config: GPTConfig, kind: str | None = None) -> None:
        super().__init__()
        self.kind = kind or config.norm
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if config.bias and self.kind == "layernorm" else None

    def forward(self, x: Tensor) -> Tensor:  # (..., width) → (..., width)
        if self.kind == "layernorm":
            return to_autocast_dtype(F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps))
        return to_autocast_dtype(rms_norm(x, self.weight, self.eps))


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): turn each pair of coordinates by an angle that grows with the position.

    The dot product of a rotated query and a rotated key depends on the distance of their positions only. Coordinate i
    is paired with i + D/2 (the "rotate-half" layout of Llama and Qwen).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        D = config.head_width
        frequencies = config.rope_theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)  # (D/2,) radians a token
        angles = torch.outer(torch.arange(config.context_length, dtype=torch.float64), frequencies).repeat(1, 2)
        sin = angles.sin()
        sin[:, : D // 2] *= -1  # (x, y) → (x·cos − y·sin, y·cos + x·sin)
        self.register_buffer("cos", angles.cos().float()[:, None], persistent=False)  # (context_length, 1, D)
        self.register_buffer("sin", sin.float()[:, None], persistent=False)

    def forward(self, x: Tensor, at: Positions) -> Tensor:  # (B, T, H, D) → (B, T, H, D)
        cos, sin = (self.get_buffer(name)[at].to(x.dtype) for name in ("cos", "sin"))  # (T, 1, D) or (B, T, 1, D)
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)  # roll swaps the coordinates of each pair


class Attention(nn.Module):
    """Causal multi-head attention (Vaswani et al. 2017): each token attends to the tokens up to itself.

    Groups of query heads may share a key and value head (GQA, Ainslie et al. 2023), and queries and keys may be
    normalised per head (QK-norm, Henry et al. 2020).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, D, bias = config.n_embd, config.head_width, config.bias
        self.D = D
        self.query = nn.Linear(C, config.n_head * D, bias=bias)
        self.key = nn.Linear(C, config.kv_heads * D, bias=bias)
        self.value = nn.Linear(C, config.kv_heads * D, bias=bias)
        self.output = nn.Linear(config.n_head * D, C, bias=bias)
        self.query_norm = Norm(D, config, "rmsnorm") if config.qk_norm else nn.Identity()
        self.key_norm = Norm(D, config, "rmsnorm") if config.qk_norm else nn.Identity()
        self.dropout = config.dropout

    def project(self, x: Tensor, rotary: Rotary | None, at: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, kv_heads, T, D) of x (B, T, C), whose tokens stand at `at`."""
        B, T, _ = x.shape
        q = self.query_norm(self.query(x).view(B, T, -1, self.D))  # (B, T, H, D)
        k = self.key_norm(self.key(x).view(B, T, -1, self.D))  # (B, T, kv_heads, D)
        v = self.value(x).view(B, T, -1, self.D)
        if rotary is not None:
            q, k = rotary(q, at), rotary(k, at)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # heads first

    def forward(self, x: Tensor, rotary: Rotary | None, mask: Tensor | None = None) -> Tensor:
        B, T, _ = x.shape  # (B, T, C) → (B, T, C)
        q, k, v = self.project(x, rotary, slice(T))
        p = self.dropout if self.training else 0.0
        y = causal_attention(q, k.to(q.dtype), v.to(q.dtype), p, mask)  # softmax(q kᵀ / √D) v: (B, H, T, D)
        return self.output(y.transpose(1, 2).reshape(B, T, -1))  # (B, T, C)


class MLP(nn.Module):
    """The feed-forward network: two or three matrices, applied to each token separately.

    GELU (Hendrycks & Gimpel 2016) as tanh approximation, as in GPT-2, or exact, which takes at most half the time on a
    CPU; or SwiGLU (Shazeer 2020), in which one projection gates another.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, hidden, bias = config.n_embd, config.hidden, config.bias
        self.gate = nn.Linear(C, hidden, bias=bias) if config.mlp == "swiglu" else None
        self.gelu_form = config.gelu_form
        self.up = nn.Linear(C, hidden, bias=bias)
        self.down = nn.Linear(hidden, C, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) → (B, T, C)
        if self.gate is None:
            return self.down(F.gelu(self.up(x), approximate=self.gelu_form))
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream (pre-norm, as in GPT-2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = Norm(config.n_embd, config)
        self.attention = Attention(config)
        self.norm2 = Norm(config.n_embd, config)
        self.mlp = MLP(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, rotary: Rotary | None, mask: Tensor | None = None) -> Tensor:
        x = x + dropout(self.attention(self.norm1(x), rotary, mask), self.dropout, self.training)
        return x + dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class GPT(nn.Module):
    """Embed, run the blocks, normalise, and compute a logit for every token of the vocabulary."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = zero_embedding(config.vocab_size, config.n_embd)
        learned = config.position == "learned"
        self.position_embedding = zero_embedding(config.context_length, config.n_embd) if learned else None
        self.rotary = None if learned else Rotary(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = Norm(config.n_embd, config)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight  # Press & Wolf 2017

    def forward(self, tokens: Tensor, separator: int | None = None) -> Tensor:
        """Logits of the next token after each token: int64 (B, T) → float (B, T, V), fp32 outside autocast.

        separator: the id that begins a document; then no token attends to another document, and positions count from
        its beginning. ValueError if T exceeds context_length; IndexError, on a CPU, for an id of V or more.
        """
        mask = at = None
        if separator is not None:
            mask, at = document_mask(tokens, separator)
        x = self.embed(tokens, at)  # (B, T, C)
        for block in self.blocks:
            x = block(x, self.rotary, mask)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits

    def embed(self, tokens: Tensor, at: Positions | None = None) -> Tensor:
        """The input of the first block: int64 (B, T), at positions `at` (None: 0 … T − 1) → (B, T, C). ValueError as in
        `forward`.
        """
        T, room = tokens.shape[1], self.config.context_length
        if room < T:
            raise ValueError(f"{T} tokens do not fit into a context of {room}.")
        x = self.token_embedding(tokens)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[slice(T) if at is None else at]
        embedded: Tensor = dropout(x, self.config.dropout, self.training)
        return embedded

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the starting weights, so that the first predictions are close to uniform: loss ≈ ln V nats.

        Matrices have standard deviation 1/√inputs, which preserves the scale of activations. The last matrix of each
        branch starts at zero, so every block starts as the identity (Zhang et al. 2019); the head starts near zero.
        Embeddings have standard deviation 0.5, the scale of what blocks soon add: with GPT-2's 0.02, block outputs
        would outweigh a token's own vector (docs/speed.md). Tied embeddings have 0.02, or 1/C if that is less: a
        token's logit for itself is C times the square, and if it is large, the model predicts every token twice.
        """
        embedding = min(0.02, 1 / self.config.n_embd) if self.config.tie_embeddings else 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif "embedding" in name:
                parameter.normal_(0.0, embedding, generator=generator)
            elif name.endswith(("attention.output.weight", "mlp.down.weight")):
                parameter.zero_()
            else:
                size = 0.001 if name == "head.weight" else parameter.shape[1] ** -0.5
                parameter.normal_(0.0, size, generator=generator)


def document_mask(tokens: Tensor, separator: int) -> tuple[Tensor, Tensor]:
    """Which token attends to which if several documents share a row, each begun by `separator`: int64 (B, T) → bool
    (B, 1, T, T), and each token's position in its document, int64 (B, T).
    """
    T = tokens.shape[1]
    begins = tokens == separator  # (B, T)
    document = begins.cumsum(dim=1)
    positions = torch.arange(T, device=tokens.device).expand_as(tokens)
    start = torch.where(begins, positions, 0).cummax(dim=1).values
    same = document[:, :, None] == document[:, None, :]  # (B, T, T)
    return same.tril()[:, None], positions - start


def count_parameters(model: nn.Module) -> int:
    """The number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def training_flops_per_token(config: GPTConfig) -> int:
    """Floating-point operations (not multiply-adds) to learn from one token: forward, and twice that backward.

    6 for each weight of a matrix product (embedding look-ups are none), and 12 × n_layer × H × D × T/2 for attention,
    since the causal mask halves its products (Chowdhery et al. 2022, appendix B). For training all weights: with LoRA,
    a frozen weight takes a third less.
    """
    C, D, T = config.n_embd, config.head_width, config.context_length
    attention = 2 * C * D * (config.n_head + config.kv_heads)
    mlp = C * config.hidden * (3 if config.mlp == "swiglu" else 2)
    matrices = config.n_layer * (attention + mlp) + C * config.vocab_size
    return 6 * matrices + 12 * config.n_layer * config.n_head * D * T // 2
