"""The KV cache: generation computes each token once, and keeps what later tokens need of it.

A token attends to the keys and values of itself and of all tokens before it. These do not change as the text grows, so
they are kept: `step(model, cache, token)` → the logits of the next token, as `model(tokens)` computes them for the
whole text. Left out: a context that is full, and several sequences at once (generation/ does both).
"""

import math
from typing import Any

import torch
from torch import Tensor

from tinygpt.model.gpt import GPT


class KVCache:
    """For each block the keys and values of the tokens so far: (1, kv_heads, T, D)."""

    def __init__(self, model: GPT) -> None:
        empty = torch.empty(1, model.config.kv_heads, 0, model.config.head_width)
        self.keys = [empty] * model.config.n_layer
        self.values = [empty] * model.config.n_layer

    def __len__(self) -> int:
        return self.keys[0].shape[2]  # T

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the key and value of one more token, (1, kv_heads, 1, D); all of this block: (1, kv_heads, T + 1, D)."""
        self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
        self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return self.keys[layer], self.values[layer]


@torch.no_grad()
def step(model: GPT, cache: KVCache, token: int) -> Tensor:
    """Read one more token: the logits of the one after it, (V,)."""
    at = slice(len(cache), len(cache) + 1)  # its position
    x = model.embed(torch.tensor([[token]]), at)  # (1, 1, C)
    for layer, block in enumerate(list[Any](model.blocks)):
        q, k, v = block.attention.project(block.norm1(x), model.rotary, at)  # (1, H or kv_heads, 1, D)
        keys, values = cache.add(layer, k, v)
        x = x + block.attention.output(attend(q, keys, values))
        x = x + block.mlp(block.norm2(x))
    logits: Tensor = model.head(model.norm(x))[0, 0]
    return logits


def attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v, to all tokens so far, so without a mask: (1, H, 1, D) → (1, 1, H · D)."""
    heads = q.shape[1] // keys.shape[1]  # query heads that share a head of keys and values
    keys, values = keys.repeat_interleave(heads, dim=1), values.repeat_interleave(heads, dim=1)  # (1, H, T, D)
    weights = (q @ keys.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)  # (1, H, 1, T)
    return (weights @ values).transpose(1, 2).flatten(2)
