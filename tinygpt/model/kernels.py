"""Code that exists only for speed, one function each; tests/model/test_kernels.py says what each gains.

Each replaces one PyTorch call, with the same results up to rounding: `rms_norm` F.rms_norm, `causal_attention`
F.scaled_dot_product_attention, `dropout` F.dropout (with another random mask), `zero_embedding` nn.Embedding.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean x² + eps) × weight: (..., C), (C,) → (..., C); in fp32 when a CPU trains, else in x's dtype."""
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return cast(Tensor, RMSNorm.apply(x.float(), weight, eps))  # type: ignore[no-untyped-call]
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


class RMSNorm(torch.autograd.Function):
    """RMSNorm with a hand-written backward pass; on a CPU, PyTorch composes both passes from small operations.

    With n = x / √(mean x² + eps) and g = gradient × weight: dx = (g − n · mean(g·n)) / √(mean x² + eps).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # (..., C), (C,) → (..., C), fp32
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]  # (..., 1)
        scale = torch.rsqrt(mean_square + eps)
        n = x * scale
        ctx.save_for_backward(n, scale, weight)
        return n * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # (..., C) → (..., C), (C,)
        (gradient,), (n, scale, weight) = gradients, ctx.saved_tensors
        g = gradient * weight
        mean = torch.linalg.vecdot(g, n).unsqueeze(-1) / n.shape[-1]  # (..., 1)
        return (g - n * mean) * scale, (gradient * n).flatten(0, -2).sum(0), None


def causal_attention(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √D) v with a causal mask: (B, H, T, D) and twice (B, kv_heads, T, D) → (B, H, T, D).

    All of one floating dtype. p: the fraction of attention weights that dropout sets to zero. mask: bool (B, 1, T, T),
    true where a token attends to another, which must not be a later one.
    """
    slow = mask is not None or (q.device.type == "cpu" and (p or q.dtype == torch.bfloat16))
    if slow and torch.is_grad_enabled():  # with a mask, CUDA's fused backward pass would not be deterministic
        return naive_attention(q, k, v, p, mask)
    causal, grouped = mask is None, q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=causal, enable_gqa=grouped)


def naive_attention(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """`causal_attention` that stores the T × T attention weights: faster on a CPU in bf16 or with dropout."""
    B, H, T, D = q.shape
    groups = H // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)  # (B, H, T, D)
    hidden = torch.full((T, T), -math.inf, dtype=q.dtype, device=q.device)  # −∞ where a token must not look
    bias = hidden.triu(1) if mask is None else hidden.masked_fill(mask, 0).expand(B, H, T, T).flatten(0, 1)
    scores = torch.baddbmm(bias, (q * D**-0.5).flatten(0, 1), k.flatten(0, 1).mT)  # (B·H, T, T)
    weights = dropout(scores.softmax(dim=-1), p)
    return (weights @ v.flatten(0, 1)).view(B, H, T, D)


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Dropout (Srivastava et al. 2014): while training, set a random fraction p of x (any shape) to zero and multiply
    the rest by 1 / (1 − p).

    On a CPU, PyTorch draws 64 random bits for each number; here one draw serves four numbers.
    """
    if not p or not training or x.device.type != "cpu":
        return F.dropout(x, p, training)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)  # uniform over −32768 … 32767
    limit = min(round(2**16 * (1 - p)) - 2**15, 2**15 - 1)  # at most the largest int16
    return x * (bits < limit).to(x.dtype).mul_(1 / (1 - p))


def to_autocast_dtype(x: Tensor) -> Tensor:
    """x in autocast's dtype for matrix products: cast once, instead of once by each product that uses x."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def zero_embedding(count: int, width: int) -> nn.Embedding:
    """An embedding of `count` vectors, zeros until `GPT.initialise` or a file sets them.

    nn.Embedding would initialise at random, and for that PyTorch loads its compiler even when only shapes are needed
    (hf_names.weight_shapes).
    """
    return nn.Embedding.from_pretrained(torch.zeros(count, width), freeze=False)
