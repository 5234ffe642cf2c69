"""The decoder of a CPU: the compiled loops of loops.py, on the weights of a model.

`decoder_of(model, B)` chooses between it and the one of decoder.py.
"""

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinygpt.generation.decoder import Decoder, TorchDecoder
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.model.quantization import Int8Linear, WeightType, convert

try:
    from tinygpt.generation import compiled, loops
    from tinygpt.generation.loops import FEW, Shape, Weights
    from tinygpt.generation.vectors import LANES
except ImportError as problem:  # numba is missing, or has nothing for this machine
    MISSING: str | None = str(problem)
else:
    MISSING = None

SHARED = 2**21  # multiplications of a step from which it is worth waking another thread, some 100 microseconds


def decoder_of(model: GPT, batch: int) -> Decoder:
    """The fastest decoder of a model for B sequences: compiled loops on a CPU, else PyTorch's."""
    if not fits(model):
        return TorchDecoder(model, batch)
    if MISSING:
        warnings.warn(f"PyTorch decodes, slowly, since numba cannot: {MISSING}. `pip install numba`", stacklevel=2)
        return TorchDecoder(model, batch)
    return LoopDecoder(model, batch)


def is_ready(weights: WeightType = "fp32") -> bool:
    """Whether a CPU can decode at once; else the loops for such weights are compiled first, some ten seconds."""
    if MISSING:
        return True
    decoder = LoopDecoder(tiny(weights), 1)
    return compiled.is_kept(loops.forward, *decoder.arguments([(0,)], [0], [0], False, decoder.nothing))


def prepare(weights: WeightType = "fp32") -> None:
    """Compile what a CPU needs to decode, or load it: the same for all models with such weights."""
    decoder_of(tiny(weights), 1).logits([[0]])


def tiny(weights: WeightType) -> GPT:
    """A model as small as can be."""
    config = GPTConfig(
        vocab_size=1, n_layer=1, n_head=1, n_kv_head=None, head_dim=None, n_embd=2, mlp_hidden=1, context_length=1,
        norm="rmsnorm", norm_eps=1e-6, position="rope", rope_theta=1e4, mlp="swiglu", qk_norm=True, bias=False,
        tie_embeddings=True, dropout=0.0,
    )  # fmt: skip
    return convert(GPT(config), weights)


def fits(model: GPT) -> bool:
    """Whether the loops can read this model: matrices of one plain kind, and float32, in this machine's memory."""
    layers = {type(module) for module in model.modules() if isinstance(module, (nn.Linear, Int8Linear))}
    return (
        len(layers) == 1
        and layers <= {nn.Linear, Int8Linear}
        and all(
            tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.int8) and tensor.is_contiguous()
            for tensor in (*model.parameters(), *model.buffers())
        )
    )


def is_int8(model: GPT) -> bool:
    return isinstance(model.head, Int8Linear)


class LoopDecoder(Decoder):
    """Decodes B sequences at once, with the model's own weights; several threads share large steps."""

    def __init__(self, model: GPT, batch: int) -> None:
        super().__init__(model.config, batch)
        self.weights, self.shape = weights_of(model), shape_of(model.config)
        self.memory = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]  # `weights` points there
        self.multiplications = sum(tensor.numel() for tensor in self.memory)  # for a token, about
        config = model.config
        size = (config.n_layer, batch, config.kv_heads, config.context_length, config.head_width)
        self.keys, self.values = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
        self.nothing = np.empty((0, config.vocab_size), dtype=np.float32)  # where no logits are wanted

    @property
    def cache_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def select_rows(self, rows: list[int]) -> None:
        super().select_rows(rows)
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def copy_row(self, row: int, others: list[int], count: int) -> None:
        for kept in (self.keys, self.values):
            kept[:, others, :, :count] = kept[:, row : row + 1, :, :count]

    def read(self, texts: list[tuple[int, ...]], rows: list[int]) -> None:
        self.forward(texts, rows, [0] * len(rows), self.nothing)

    def step(self, tokens: list[int]) -> Tensor:
        logits = np.empty((len(tokens), self.config.vocab_size), dtype=np.float32)
        at = [length - 1 for length in self.lengths]
        self.forward([(token,) for token in tokens], list(range(len(tokens))), at, logits)
        return torch.from_numpy(logits)

    def forward(self, texts: list[tuple[int, ...]], rows: list[int], starts: list[int], logits: np.ndarray) -> None:
        """Read texts, each from a position of its row of the cache on; threads take some of the texts each."""
        unknown = [token for text in texts for token in text if not 0 <= token < self.config.vocab_size]
        if unknown:  # loops would read on, wherever that is
            raise IndexError(f"{unknown[0]} is no token of a vocabulary of {self.config.vocab_size}.")
        total = sum(map(len, texts))
        useful = min(len(texts), math.ceil(total / LANES), math.ceil(total * self.multiplications / SHARED))
        threads = min(torch.get_num_threads(), useful)

        def work(thread: int) -> None:
            mine = slice(len(texts) * thread // threads, len(texts) * (thread + 1) // threads)
            loops.forward(*self.arguments(texts[mine], rows[mine], starts[mine], total > FEW, logits[mine]))

        others = [pool(os.getpid()).submit(work, thread) for thread in range(1, threads)]
        work(0)
        for other in others:
            other.result()

    def arguments(
        self, texts: list[tuple[int, ...]], rows: list[int], starts: list[int], many: bool, logits: np.ndarray
    ) -> tuple[Any, ...]:
        """What `loops.forward` is called with."""
        places = [
            (token, row, at)
            for text, row, start in zip(texts, rows, starts, strict=True)
            for at, token in enumerate(text, start)
        ]
        tokens, where, at = np.array(places, dtype=np.int64).T.copy()
        return self.weights, self.shape, tokens, where, at, many, self.keys, self.values, logits


@cache
def pool(process: int) -> ThreadPoolExecutor:
    """Threads for this process: a forked child has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count())


def shape_of(config: GPTConfig) -> "Shape":
    mlps = {"gelu": loops.GELU, "gelu_exact": loops.GELU_EXACT, "swiglu": loops.SWIGLU}
    layernorm = config.norm == "layernorm"
    return Shape(config.n_head, config.kv_heads, config.head_width, config.norm_eps, layernorm, mlps[config.mlp])


def weights_of(model: GPT) -> "Weights":
    """The model's own weights, as loops read them: where they lie in memory, which has to outlive this."""
    blocks = list[Any](model.blocks)
    modules: dict[int, list[Any]] = {
        loops.EMBEDDING: [model.token_embedding],
        loops.POSITION: [model.position_embedding],
        loops.NORM1: [block.norm1 for block in blocks],
        loops.QUERY: [block.attention.query for block in blocks],
        loops.KEY: [block.attention.key for block in blocks],
        loops.VALUE: [block.attention.value for block in blocks],
        loops.QUERY_NORM: [block.attention.query_norm for block in blocks],
        loops.KEY_NORM: [block.attention.key_norm for block in blocks],
        loops.OUTPUT: [block.attention.output for block in blocks],
        loops.NORM2: [block.norm2 for block in blocks],
        loops.GATE: [block.mlp.gate for block in blocks],
        loops.UP: [block.mlp.up for block in blocks],
        loops.DOWN: [block.mlp.down for block in blocks],
        loops.NORM: [model.norm],
        loops.HEAD: [model.head],
    }
    arrays = {
        part + offset: [getattr(module, name, None) for module in found]
        for part, found in modules.items()
        for offset, name in ((0, "weight"), (loops.BIAS, "bias"), (loops.SCALE, "scale"))
    }
    if model.rotary is not None:
        arrays |= {loops.COS: [model.rotary.get_buffer("cos")[:, 0]], loops.SIN: [model.rotary.get_buffer("sin")[:, 0]]}
    addresses, sizes = np.zeros((51, len(blocks)), dtype=np.uint64), np.zeros((51, 2), dtype=np.int64)
    for part, tensors in arrays.items():
        for block, tensor in enumerate(tensors):
            if tensor is not None:
                addresses[part, block], sizes[part] = tensor.data_ptr(), (1, *tensor.shape)[-2:]
    return Weights(addresses, sizes, np.empty(0, dtype=np.int8 if is_int8(model) else np.float32))
