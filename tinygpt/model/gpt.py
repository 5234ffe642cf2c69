"""The GPT: tokens in, logits for the next token out.

Read it from top to bottom; each part is used by the one below it: configuration, norm, positions, attention, MLP,
block, the stack. `model(tokens)` → logits. Nothing here knows of training, sampling, files or devices; what exists only
for speed is in kernels.py. generation/decoder.py computes the same with a cache, where text is written. Letters for
sizes: B sequences in a batch, T tokens in a sequence, C = n_embd, H heads, D = head_dim, V tokens in the vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model.kernels import causal_attention, dropout, rms_norm, to_autocast_dtype, zero_embedding


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT: the `model` section of params.yaml, and the tokenizer's vocabulary size.

    Nothing is checked here: config.py checks params.yaml, and checkpoints/hf_names.py what a model folder says.
    """

    vocab_size: int  # V, tokens
    n_layer: int  # blocks
    n_head: int  # H, heads of queries
    n_kv_head: int | None  # heads of keys and values, a divisor of n_head; None: n_head
    head_dim: int | None  # D, numbers a head; None: n_embd / n_head
    n_embd: int  # C, numbers a token
    mlp_hidden: int | None  # numbers a token inside the MLP; None: see `hidden`
    context_length: int  # tokens seen at once, at most
    norm: Literal["rmsnorm", "layernorm"]
    norm_eps: float  # added to the mean square, or the variance, before its root
    position: Literal["rope", "learned"]
    rope_theta: float  # the slowest pair of coordinates turns by about 1 / rope_theta radians a token
    mlp: Literal["swiglu", "gelu", "gelu_exact"]
    qk_norm: bool  # RMSNorm of each head's queries and keys
    bias: bool  # of matrices, and of LayerNorm
    tie_embeddings: bool  # one matrix for the token embedding and the head
    dropout: float  # the fraction of activations set to zero in training, 0 to below 1

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
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
        """How GELU is approximated, in PyTorch's words."""
        return "none" if self.mlp == "gelu_exact" else "tanh"


class Norm(nn.Module):
    """Rescale each vector to unit size, then by learned weights.

    LayerNorm (Ba et al. 2016) also subtracts the mean; RMSNorm (Zhang & Sennrich 2019) saves itself that. Computed in
    the precision of its input, handed on in autocast's.
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

    The product of a turned query and a turned key depends on how far apart they stand, not on where. Coordinate i
    is paired with i + D/2 (the "rotate-half" layout of Llama and Qwen).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        D = config.head_width
        frequencies = config.rope_theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)  # (D/2,) radians a token
        angles = torch.outer(torch.arange(config.context_length, dtype=torch.float64), frequencies).repeat(1, 2)
        sin = angles.sin()
        sin[:, : D // 2] *= -1  # (x, y) turns to (x·cos − y·sin, y·cos + x·sin)
        self.register_buffer("cos", angles.cos().float()[:, None], persistent=False)  # (context_length, 1, D)
        self.register_buffer("sin", sin.float()[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H, D), at positions 0 … T−1
        T, D = x.shape[1], x.shape[-1]
        cos, sin = (self.get_buffer(name)[:T].to(x.dtype) for name in ("cos", "sin"))  # (T, 1, D)
        return torch.addcmul(x * cos, x.roll(D // 2, dims=-1), sin)  # roll: each coordinate's partner in its place


class Attention(nn.Module):
    """Causal multi-head attention (Vaswani et al. 2017): each token attends to the tokens up to itself.

    Query heads may share heads of keys and values in groups (GQA, Ainslie et al. 2023), and queries and keys may be
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

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:  # (B, T, C) → (B, T, C)
        B, T, _ = x.shape
        q = self.query_norm(self.query(x).view(B, T, -1, self.D))  # (B, T, H, D)
        k = self.key_norm(self.key(x).view(B, T, -1, self.D))  # (B, T, kv_heads, D)
        v = self.value(x).view(B, T, -1, self.D)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # heads to the front, as attention wants them
        p = self.dropout if self.training else 0.0
        y = causal_attention(q, k.to(q.dtype), v.to(q.dtype), p)  # softmax(q kᵀ / √D) v: (B, H, T, D)
        return self.output(y.transpose(1, 2).reshape(B, T, -1))  # (B, T, C)


class MLP(nn.Module):
    """The feed-forward network: two or three matrices, applied to each token alone.

    GELU (Hendrycks & Gimpel 2016; its tanh form as in GPT-2, or itself, which on a CPU takes half the time or less), or
    SwiGLU (Shazeer 2020), in which one projection gates another.
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

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:  # (B, T, C) → (B, T, C)
        x = x + dropout(self.attention(self.norm1(x), rotary), self.dropout, self.training)
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

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token after each token: int64 (B, T) → float (B, T, V), fp32 outside autocast.

        ValueError where there are more tokens than the context has room for; IndexError, on a CPU, for an id of V or
        more.
        """
        x = self.embed(tokens)  # (B, T, C)
        for block in self.blocks:
            x = block(x, self.rotary)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits

    def embed(self, tokens: Tensor) -> Tensor:
        """What goes into the first block: int64 (B, T) → (B, T, C). ValueError as in `forward`."""
        T, room = tokens.shape[1], self.config.context_length
        if room < T:
            raise ValueError(f"{T} tokens do not fit into a context of {room}.")
        x = self.token_embedding(tokens)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[:T]
        embedded: Tensor = dropout(x, self.config.dropout, self.training)
        return embedded

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the starting weights, so that the first predictions are close to uniform: loss ≈ ln V nats.

        Matrices keep the size of what passes through them (standard deviation 1/√inputs). What a block adds to the
        residual stream starts at zero, so the stack begins as the identity and deepens as it learns (Zhang et al.
        2019); the head starts near zero. Embeddings start at 0.5, the size of what blocks soon add to them: at GPT-2's
        0.02 a token's own vector would be drowned (docs/speed.md). Where they are the head as well, they start at 0.02,
        or at 1/C if that is less, since a token's score for itself is C times the square of that, and the model would
        expect every token twice.
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


def count_parameters(model: nn.Module) -> int:
    """The number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def training_flops_per_token(config: GPTConfig) -> int:
    """Floating-point operations (not multiply-adds) to learn from one token: forward, and twice that backward.

    6 for each weight of a matrix that multiplies (embedding look-ups do not), and 12 × n_layer × H × D × T/2 for
    attention, half of whose products the causal mask spares (Chowdhery et al. 2022, appendix B). As if all weights
    learned: LoRA spares the frozen ones a third of it.
    """
    C, D, T = config.n_embd, config.head_width, config.context_length
    attention = 2 * C * D * (config.n_head + config.kv_heads)
    mlp = C * config.hidden * (3 if config.mlp == "swiglu" else 2)
    matrices = config.n_layer * (attention + mlp) + C * config.vocab_size
    return 6 * matrices + 12 * config.n_layer * config.n_head * D * T // 2
