"""The decoder: the logits of `model(tokens)`, one token at a time, with a KV cache and fused operations.

`decoder = Decoder(model, B)`; `decoder.logits(windows)` → the next token's logits of B sequences of any lengths. Where
a step computes little, it waits: for weights to come from memory, and for PyTorch between two small operations. So
keys and values are kept, and each token is computed once; matrices that read the same vector become one matrix, and
the weights of the norm before it a part of it; and large matrices are laid out as they are read.
Letters are those of model/gpt.py, and N is the number of tokens computed at once.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.gpt import GPT, Norm

LARGE = 2**17  # weights; what a smaller matrix does to one vector is done before a second core is awake
WIDTH = 32  # outputs in a piece of a large matrix
PLAIN = 16  # steps before one is recorded, which takes as long: rows may end, and then it has to be done anew
READ = 1024  # tokens that are read at once, of texts of one length; more take memory, and no less time


class PackedLinear:
    """Linear layers that read the same vector, and the norm before them if there is one: (N, C) → (N, outputs).

    On a CPU a large matrix is laid out as it will be read. For several sequences oneDNN orders it, for its own product.
    For one, which waits for memory alone, it is cut into pieces of WIDTH outputs, each standing in memory from one end
    to the other, so that the next numbers are on their way before they are asked for, and each core takes its share.
    """

    def __init__(self, layers: list[nn.Linear], batch: int, norm: Norm | None = None) -> None:
        weight = torch.cat([layer.weight for layer in layers])  # (outputs, C)
        bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else weight.new_zeros(1)
        if norm is not None:
            if norm.bias is not None:
                bias = weight @ norm.bias + bias
            length = 1.0 if norm.kind == "layernorm" else weight.shape[1] ** 0.5  # see `rescaled`
            weight = weight * (norm.weight * length)
        self.outputs, self.weights, self.bias = len(weight), weight.numel(), bias.expand(len(weight)).contiguous()
        large = weight.device.type == "cpu" and self.weights >= LARGE
        self.packed = large and batch > 1 and torch.backends.mkldnn.is_available()
        self.pieces = -(-self.outputs // WIDTH) if large and not self.packed else 1
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, batch)  # as TorchInductor calls it
        elif self.pieces > 1:
            missing = self.pieces * WIDTH - self.outputs
            self.weight = F.pad(weight, (0, 0, 0, missing)).unflatten(0, (-1, WIDTH)).mT.contiguous()
            self.bias = F.pad(self.bias, (0, missing)).unflatten(0, (-1, 1, WIDTH))  # (pieces, 1, WIDTH)
        else:
            self.weight = weight.mT.contiguous()  # (C, outputs)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return y
        if self.pieces == 1:
            return torch.addmm(self.bias, x, self.weight)
        y = torch.baddbmm(self.bias, x.expand(self.pieces, -1, -1), self.weight)
        return y.transpose(0, 1).flatten(1)[:, : self.outputs]


class Decoder:
    """Decodes B sequences at once. Later changes to the model's weights are ignored.

    Memory is allocated once: a copy of the weights, and 2 × n_layer × B × kv_heads × context_length × D numbers for
    keys and values.
    """

    @torch.inference_mode()
    def __init__(self, model: GPT, batch: int) -> None:
        config = self.config = model.config
        self.D, self.turned = config.head_width, config.n_head + config.kv_heads
        self.embedding, self.position = model.token_embedding.weight, model.position_embedding
        self.layers = [
            (
                PackedLinear([block.attention.query, block.attention.key, block.attention.value], batch, block.norm1),
                PackedLinear([block.attention.output], batch),
                PackedLinear(
                    [layer for layer in (block.mlp.gate, block.mlp.up) if layer is not None], batch, block.norm2
                ),
                PackedLinear([block.mlp.down], batch),
            )
            for block in list[Any](model.blocks)
        ]
        self.head = PackedLinear([model.head], batch, model.norm)
        self.rope_tables = rope_tables(model)  # cosines and sines
        self.floors = {C: self.embedding.new_tensor(C * config.norm_eps).sqrt() for C in (config.n_embd, self.D)}
        shape = (config.n_layer, 2, batch, config.kv_heads, config.context_length, self.D)
        self.cache = self.embedding.new_zeros(shape)  # keys, then values; what a mask hides must still be a number
        device = self.cache.device
        self.nothing, self.rows = self.cache.new_zeros(1), torch.arange(batch, device=device)
        self.newest = torch.zeros(2, batch, dtype=torch.int64, device=device)  # tokens and their positions, for `play`
        self.replay: CUDAGraphRunner[Tensor] = CUDAGraphRunner(device, PLAIN)
        self.largest = max(matrix.weights for matrix in [*chain(*self.layers), self.head])
        self.lengths = [0] * batch  # how many tokens of each sequence it holds

    @torch.inference_mode()
    def logits(self, windows: list[list[int]]) -> Tensor:
        """Logits of the next token of each sequence: float32 (B, V), on the model's device.

        windows: the ids that the model is to see of each, 1 … context_length of them. One that has grown by a token
        since the last call costs that token; any other is read anew, and once where several are alike.
        """
        fresh: dict[int, dict[tuple[int, ...], list[int]]] = {}  # by length, texts and the rows that want them
        for row, (window, length) in enumerate(zip(windows, self.lengths, strict=True)):
            if len(window) != length + 1:
                fresh.setdefault(len(window) - 1, {}).setdefault(tuple(window[:-1]), []).append(row)
        for T, texts in fresh.items():
            alike, size = [*texts.items()], max(READ // max(T, 1), 1)
            for start in range(0, len(alike), size):
                self.prefill(dict(alike[start : start + size]))
        self.lengths = [len(window) for window in windows]
        with threads(1 if len(windows) * self.largest < LARGE else None):
            return self.step([window[-1] for window in windows])

    def select_rows(self, rows: list[int]) -> None:
        """Keep only these sequences, in this order."""
        self.cache, self.rows = self.cache[:, :, rows], self.rows[: len(rows)]
        self.newest = self.newest[:, : len(rows)]
        self.lengths = [self.lengths[row] for row in rows]

    def prefill(self, texts: dict[tuple[int, ...], list[int]]) -> None:
        """Read N texts of T tokens from position 0 on; keep keys and values for the sequences that begin with each."""
        N, T, H = len(texts), len(next(iter(texts))), self.config.n_head
        rows = [row for some in texts.values() for row in some]
        source = [text for text, some in enumerate(texts.values()) for _ in some]

        def attend(layer: int, heads: Tensor) -> Tensor:  # (N·T, H + 2·kv_heads, D) → (N·T, H·D)
            heads = heads.unflatten(0, (N, T)).transpose(1, 2)  # (N, H + 2·kv_heads, T, D)
            k, v = heads[:, H:].chunk(2, dim=1)
            self.cache[layer][:, rows, :, :T] = torch.stack([k, v])[:, source]
            y = F.scaled_dot_product_attention(heads[:, :H], k, v, is_causal=True, enable_gqa=True)
            return y.transpose(1, 2).reshape(N * T, -1)

        if T:
            at = torch.arange(T, device=self.cache.device).repeat(N)
            self.blocks(torch.tensor([*texts], device=at.device).flatten(), at, attend)

    def step(self, tokens: list[int]) -> Tensor:
        """Read the last token of each sequence; the next one's logits: (B, V).

        On CUDA the step is recorded (model/cuda_graphs.py), so its shapes must stay: it looks at the whole context each
        time.
        """
        if self.replay.on_cuda:
            self.newest.copy_(torch.tensor([tokens, [length - 1 for length in self.lengths]]))
            newest, end = self.newest.unbind(), self.config.context_length
            return self.replay(lambda: self.run_blocks(newest[0], newest[1], end), [self.cache])
        S, device = max(self.lengths), self.cache.device
        ends = S - 1 if min(self.lengths) == S else torch.tensor(self.lengths, device=device) - 1
        return self.run_blocks(torch.tensor(tokens, device=device), ends, S)

    def run_blocks(self, tokens: Tensor, at: int | Tensor, end: int) -> Tensor:
        """`step` for tokens (B,) at one position or each at its own (B,), all of them before `end`."""
        B, S, H, kv_heads = len(tokens), end, self.config.n_head, self.config.kv_heads
        k, v = self.cache[..., :S, :].flatten(2, 3).unbind(1)  # (n_layer, B·kv_heads, S, D)
        keys, values, places = k.mT.unbind(), v.unbind(), self.cache[..., S - 1, :].transpose(1, 2).unbind()
        hidden = here = self.nothing
        if not isinstance(at, int):
            hidden = self.padding_mask(at, S)
            if self.replay.on_cuda:
                here = (torch.arange(S, device=at.device) == at[:, None])[:, None, :, None]

        def attend(layer: int, heads: Tensor) -> Tensor:  # (B, H + 2·kv_heads, D) → (B, H·D)
            new = heads[:, H:].view(B, 2, kv_heads, self.D)
            if isinstance(at, int):  # they end at one place: no indices to gather
                places[layer].copy_(new)
            elif self.replay.on_cuda:  # there an index means a dozen kernels, so the whole layer is written
                torch.where(here, new.transpose(0, 1).unsqueeze(-2), self.cache[layer], out=self.cache[layer])
            else:
                self.cache[layer][:, self.rows, :, at] = new
            q = heads[:, :H].reshape(B * kv_heads, -1, self.D)  # the heads that share keys, as rows of one product
            weights = torch.baddbmm(hidden, q, keys[layer], alpha=self.D**-0.5).softmax(-1)
            return torch.bmm(weights, values[layer]).view(B, -1)

        return self.head(self.rescaled(self.blocks(tokens, at, attend)))

    def padding_mask(self, at: Tensor, end: int) -> Tensor:
        """Mask added to attention scores, so that no sequence attends beyond its end: (B,) → zeros and −∞,
        (B·kv_heads, 1, end).
        """
        behind = torch.arange(end, device=at.device) > at[:, None]
        hidden = torch.zeros_like(behind, dtype=self.cache.dtype).masked_fill_(behind, -math.inf)
        return hidden.repeat_interleave(self.config.kv_heads, dim=0)[:, None]

    def blocks(self, tokens: Tensor, at: int | Tensor, attend: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The stack, for tokens (N,) at one position or each at its own: (N, C). `attend` is attention over the tokens
        that each of them sees.
        """
        x = self.embedding[tokens]
        if self.position is not None:
            x += self.position.weight[at]
        rotations = [
            (table[at] * weight).unbind() for table, weight in self.rope_tables
        ]  # of (N or 1, H + kv_heads, D)
        for layer, (project, output, up, down) in enumerate(self.layers):
            heads = project(self.rescaled(x)).view(len(x), -1, self.D)  # (N, H + 2·kv_heads, D)
            if rotations:
                self.turn(heads[:, : self.turned], *(table[layer] for table in rotations))
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
            return torch.layer_norm(x, x.shape[-1:], eps=self.config.norm_eps)
        return x / self.length(x)

    def length(self, x: Tensor) -> Tensor:  # (…, C) → (…, 1)
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.floors[x.shape[-1]])

    def activated(self, x: Tensor) -> Tensor:
        if self.config.mlp != "swiglu":
            return F.gelu(x, approximate=self.config.gelu_form)
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)


def rope_tables(model: GPT) -> list[tuple[Tensor, Tensor]]:
    """Two tables of rotations, cosines and sines (context_length, 1, D), each with what it is multiplied by in each
    block: the weights of queries' and keys' norms (n_layer, 1, H + kv_heads, D). Learned positions turn by nothing;
    none where there is no such norm either.
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


class Threads:
    """`with threads(1):` lets PyTorch compute with one thread, and then again with as many as usual; None is the usual.

    The number is the process's as well as the thread's: a thread that first computes while another is inside starts
    with that one's. So what is usual is noted only while nobody is inside.
    """

    def __init__(self) -> None:
        self._inside, self._usual, self._lock = 0, 1, threading.Lock()

    @contextmanager
    def __call__(self, count: int | None) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._usual = torch.get_num_threads()
            self._inside += 1
        torch.set_num_threads(count or self._usual)
        try:
            yield
        finally:
            torch.set_num_threads(self._usual)
            with self._lock:
                self._inside -= 1


threads = Threads()
