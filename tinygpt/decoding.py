"""The GPT once more, made to write: the scores of `model(tokens)`, a token at a time, in fewer and larger steps.

`decoder = Decoder(model, B)`; `decoder.scores(windows)` → the next token's scores of B sequences of any lengths. Where
a step computes little, it waits: for weights to come from memory, and for PyTorch between two small operations. So
keys and values are kept, and each token is computed once; matrices that read the same vector become one matrix, and
the weights of the norm before it a part of it; and large matrices are laid out as they are read.
Letters are those of model.py, and N is the number of tokens computed at once.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model import GPT, Norm

LARGE = 2**18  # weights; a smaller matrix stays in a core's own cache, and is read before a second core is awake
WIDTH = 32  # outputs in a piece of a large matrix


class Matrix:
    """Linear layers that read the same vector, and the norm before them if there is one: (N, C) → (N, outputs).

    On a CPU a large matrix is cut into pieces of WIDTH outputs, each standing in memory as it is read, from one end to
    the other, so that the next numbers are on their way before they are asked for, and each core takes its share.
    """

    def __init__(self, layers: list[nn.Linear], norm: Norm | None = None) -> None:
        weight = torch.cat([layer.weight for layer in layers])  # (outputs, C)
        bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else weight.new_zeros(1)
        if norm is not None:
            if norm.bias is not None:
                bias = weight @ norm.bias + bias
            length = 1.0 if norm.kind == "layernorm" else weight.shape[1] ** 0.5  # see `rescaled`
            weight = weight * (norm.weight * length)
        self.outputs = len(weight)
        width = WIDTH if weight.device.type == "cpu" and weight.numel() >= LARGE else self.outputs
        missing = -self.outputs % width
        weight, bias = F.pad(weight, (0, 0, 0, missing)), F.pad(bias.expand(self.outputs), (0, missing))
        self.pieces = len(weight) // width
        self.weight = weight.unflatten(0, (-1, width)).mT.contiguous()  # (pieces, C, width)
        self.bias = bias.unflatten(0, (-1, 1, width))  # (pieces, 1, width)

    def __call__(self, x: Tensor) -> Tensor:
        if self.pieces == 1:
            return torch.addmm(self.bias[0], x, self.weight[0])
        y = torch.baddbmm(self.bias, x.expand(self.pieces, -1, -1), self.weight)
        return y.transpose(0, 1).flatten(1)[:, : self.outputs]


class Decoder:
    """Writes B sequences at once. Takes memory once, for keys and values, 2 × n_layer × B × kv_heads × context_length ×
    D, and for a copy of the weights; what becomes of the model's own weights later, it does not see.
    """

    @torch.inference_mode()
    def __init__(self, model: GPT, batch: int) -> None:
        config = self.config = model.config
        blocks: list[Any] = list(model.blocks)
        self.embedding, self.position = model.token_embedding.weight, model.position_embedding
        self.layers = [
            (
                Matrix([block.attention.query, block.attention.key, block.attention.value], block.norm1),
                Matrix([block.attention.output]),
                Matrix([block.mlp.up] if block.mlp.gate is None else [block.mlp.gate, block.mlp.up], block.norm2),
                Matrix([block.mlp.down]),
            )
            for block in blocks
        ]
        self.head = Matrix([model.head], model.norm)
        self.turns = turns(model)  # cosines and sines
        self.floors = {C: self.embedding.new_tensor(C * config.norm_eps).sqrt() for C in (config.n_embd, self.D)}
        shape = (config.n_layer, batch, 2 * config.kv_heads, config.context_length, self.D)
        self.cache = self.embedding.new_zeros(shape)  # keys, then values; what a mask hides must still be a number
        self.lengths = [0] * batch  # how many tokens of each sequence it holds

    @property
    def D(self) -> int:  # noqa: N802
        return self.config.head_width

    @torch.inference_mode()
    def scores(self, windows: list[list[int]]) -> Tensor:
        """Scores of the next token of each sequence: float32 (B, V), on the model's device.

        windows: the ids that the model is to see of each, 1 … context_length of them. One that has grown by a token
        since the last call costs that token; any other is read anew, and once where several are alike.
        """
        fresh: dict[tuple[int, ...], list[int]] = {}
        for row, (window, length) in enumerate(zip(windows, self.lengths, strict=True)):
            if len(window) != length + 1:
                fresh.setdefault(tuple(window[:-1]), []).append(row)
        for tokens, rows in fresh.items():
            self.prefill(list(tokens), rows)
        self.lengths = [len(window) for window in windows]
        return self.step([window[-1] for window in windows])

    def keep(self, rows: list[int]) -> None:
        """Go on with these sequences only, in this order."""
        self.cache = self.cache[:, rows]
        self.lengths = [self.lengths[row] for row in rows]

    def prefill(self, tokens: list[int], rows: list[int]) -> None:
        """Read T tokens from position 0 on, and keep their keys and values for these sequences."""
        T, H = len(tokens), self.config.n_head

        def attend(layer: int, heads: Tensor) -> Tensor:  # (T, H + 2·kv_heads, D) → (T, H·D)
            heads = heads.transpose(0, 1)
            self.cache[layer, rows, :, :T] = heads[H:]
            k, v = heads[None, H:].chunk(2, dim=1)
            y = F.scaled_dot_product_attention(heads[None, :H], k, v, is_causal=True, enable_gqa=True)
            return y[0].transpose(0, 1).flatten(1)

        if T:
            self.blocks(tokens, list(range(T)), attend)

    def step(self, tokens: list[int]) -> Tensor:
        """Read the last token of each sequence, score the next: (B, V)."""
        H, positions, S = self.config.n_head, [length - 1 for length in self.lengths], max(self.lengths)
        last = torch.tensor(positions, device=self.cache.device)  # (B,)
        mask = None
        if min(self.lengths) < S:  # a shorter sequence does not see what lies behind its end
            behind = torch.arange(S, device=last.device) > last[:, None]  # (B, S)
            mask = torch.zeros_like(behind, dtype=self.cache.dtype).masked_fill_(behind, -math.inf)[:, None, None]
        rows = torch.arange(len(tokens), device=last.device)
        keys, values = self.cache[:, :, :, :S].chunk(2, dim=2)  # (n_layer, B, kv_heads, S, D)

        def attend(layer: int, heads: Tensor) -> Tensor:  # (B, H + 2·kv_heads, D) → (B, H·D)
            if mask is None:  # they end at one place: no indices to gather
                self.cache[layer, :, :, S - 1] = heads[:, H:]
            else:
                self.cache[layer][rows, :, last] = heads[:, H:]
            q, k, v = heads[:, :H, None], keys[layer], values[layer]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).flatten(1)

        return self.head(self.rescaled(self.blocks(tokens, positions, attend)))

    def blocks(self, tokens: list[int], positions: list[int], attend: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The stack, for N tokens: (N, C). `attend` gathers from the tokens that each of them sees."""
        at, turned = torch.tensor(positions, device=self.cache.device), self.config.n_head + self.config.kv_heads
        x = self.embedding[torch.tensor(tokens, device=at.device)]
        if self.position is not None:
            x += self.position.weight[at]
        turns = [table[at] * weight for table, weight in self.turns]  # (n_layer, N, H + kv_heads, D)
        for layer, (project, output, up, down) in enumerate(self.layers):
            heads = project(self.rescaled(x)).view(len(x), -1, self.D)  # (N, H + 2·kv_heads, D)
            if turns:
                self.turn(heads[:, :turned], *(table[layer] for table in turns))
            x += output(attend(layer, heads))
            x += down(self.activated(up(self.rescaled(x))))
        return x

    def turn(self, heads: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Normalise queries and keys, where this model does, and turn them by their positions, in place."""
        if self.config.qk_norm:
            heads /= self.length(heads)
        partner = heads.roll(self.D // 2, dims=-1)
        heads.mul_(cos).addcmul_(partner, sin)

    def rescaled(self, x: Tensor) -> Tensor:  # (N, C)
        """The norm without its weights; RMSNorm's is x·√C / √(|x|² + C·eps), whose √C is in the next matrix."""
        if self.config.norm == "layernorm":
            return F.layer_norm(x, x.shape[-1:], eps=self.config.norm_eps)
        return x / self.length(x)

    def length(self, x: Tensor) -> Tensor:  # (…, C) → (…, 1)
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.floors[x.shape[-1]])

    def activated(self, x: Tensor) -> Tensor:
        if self.config.mlp == "gelu":
            return F.gelu(x, approximate="tanh")
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)


def turns(model: GPT) -> list[tuple[Tensor, Tensor]]:
    """Two tables of turns, cosines and sines (context_length, 1, D), each with what it is multiplied by in each block:
    the weights of queries' and keys' norms (n_layer, 1, H + kv_heads, D). Learned positions turn by nothing; none
    where there is no such norm either.
    """
    config, blocks = model.config, list[Any](model.blocks)
    if model.rotary is None and not config.qk_norm:
        return []
    D, still = config.head_width, model.token_embedding.weight.new_ones(config.context_length, 1, config.head_width)
    cos, sin = still, torch.zeros_like(still)
    if model.rotary is not None:
        cos, sin = (model.rotary.get_buffer(name) for name in ("cos", "sin"))
    weights = still.new_ones(config.n_layer, 1, config.n_head + config.kv_heads, D)
    if config.qk_norm:  # √D as in `rescaled`
        for weight, block in zip(weights, blocks, strict=True):
            weight[:, : config.n_head] = block.attention.query_norm.weight * D**0.5
            weight[:, config.n_head :] = block.attention.key_norm.weight * D**0.5
    return [(cos, weights), (sin, weights.roll(D // 2, dims=-1))]  # a coordinate's partner brings its own weight
