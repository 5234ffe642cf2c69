"""The decoder of a CPU: the compiled loops of loops.py, on the weights of a model.

`decoder_of(model, B)` chooses between it and the one of decoder.py.
"""

import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinygpt.generation.decoder import Decoder, TorchDecoder
from tinygpt.model.gpt import GPT, GPTConfig

try:
    from tinygpt.generation import compiled, loops
    from tinygpt.generation.loops import Matrix, Shape, Stack, Weights
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


def is_ready() -> bool:
    """Whether a CPU can decode at once; else its loops are compiled first, which takes some ten seconds."""
    return bool(MISSING) or compiled.is_kept(Path(loops.__file__))


def prepare() -> None:
    """Compile what a CPU needs to decode, or load it: the same for all models."""
    config = GPTConfig(
        vocab_size=1, n_layer=1, n_head=1, n_kv_head=None, head_dim=None, n_embd=2, mlp_hidden=None, context_length=1,
        norm="rmsnorm", norm_eps=1e-6, position="rope", rope_theta=1e4, mlp="swiglu", qk_norm=True, bias=False,
        tie_embeddings=True, dropout=0.0,
    )  # fmt: skip
    decoder_of(GPT(config), 1).logits([[0]])


def fits(model: GPT) -> bool:
    """Whether the loops can read this model: plain float32 matrices in this machine's memory."""
    matrices = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return all(type(module) is nn.Linear for module in matrices) and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()
        for tensor in (*model.parameters(), *model.buffers())
    )


class LoopDecoder(Decoder):
    """Decodes B sequences at once, with the model's own weights; several threads share large steps."""

    def __init__(self, model: GPT, batch: int) -> None:
        super().__init__(model.config, batch)
        self.memory = [
            tensor.detach() for tensor in (*model.parameters(), *model.buffers())
        ]  # that `weights` points to
        self.weights, self.shape = weights_of(model), shape_of(model.config)
        self.multiplications = sum(tensor.numel() for tensor in self.memory)  # for a token, about
        config = model.config
        size = (config.n_layer, batch, config.kv_heads, config.context_length, config.head_width)
        self.keys, self.values = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)

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
        self.forward(texts, rows, [0] * len(rows), np.empty((0, self.config.vocab_size), dtype=np.float32))

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
        threads = min(torch.get_num_threads(), len(texts), math.ceil(total * self.multiplications / SHARED))

        def work(thread: int) -> None:
            mine = slice(len(texts) * thread // threads, len(texts) * (thread + 1) // threads)
            places = [
                (token, row, at)
                for text, row, start in zip(texts[mine], rows[mine], starts[mine], strict=True)
                for at, token in enumerate(text, start)
            ]
            tokens, where, at = np.array(places, dtype=np.int64).T.copy()
            loops.forward(self.weights, self.shape, tokens, where, at, self.keys, self.values, logits[mine])

        others = [pool(os.getpid()).submit(work, thread) for thread in range(1, threads)]
        work(0)
        for other in others:
            other.result()


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
    blocks, rotary, position = list[Any](model.blocks), model.rotary, model.position_embedding
    attentions, mlps = [block.attention for block in blocks], [block.mlp for block in blocks]
    norms1, norms2 = [block.norm1 for block in blocks], [block.norm2 for block in blocks]
    nothing = np.empty((0, 0), dtype=np.float32)
    return Weights(
        embedding=model.token_embedding.weight.detach().numpy(),
        position=nothing if position is None else position.weight.detach().numpy(),
        cos=nothing if rotary is None else rotary.get_buffer("cos")[:, 0].numpy(),
        sin=nothing if rotary is None else rotary.get_buffer("sin")[:, 0].numpy(),
        norm1=stack([one.weight for one in norms1]),
        norm1_bias=stack([one.bias for one in norms1]),
        query=matrix([one.query for one in attentions]),
        key=matrix([one.key for one in attentions]),
        value=matrix([one.value for one in attentions]),
        query_norm=stack([getattr(one.query_norm, "weight", None) for one in attentions]),
        key_norm=stack([getattr(one.key_norm, "weight", None) for one in attentions]),
        output=matrix([one.output for one in attentions]),
        norm2=stack([one.weight for one in norms2]),
        norm2_bias=stack([one.bias for one in norms2]),
        gate=matrix([one.gate for one in mlps]),
        up=matrix([one.up for one in mlps]),
        down=matrix([one.down for one in mlps]),
        norm=stack([model.norm.weight]),
        norm_bias=stack([model.norm.bias]),
        head=matrix([model.head]),
    )


def stack(tensors: Sequence[Tensor | None]) -> "Stack":
    """Vectors or matrices, one of each block: all alike, or all None."""
    found = [tensor for tensor in tensors if tensor is not None]
    addresses = np.array([tensor.data_ptr() for tensor in found], dtype=np.uint64)
    rows, columns = (1, *found[0].shape)[-2:] if found else (0, 0)
    return Stack(addresses, rows, columns, np.empty(0, dtype=np.float32))


def matrix(layers: Sequence[nn.Linear | None]) -> "Matrix":
    found = [layer for layer in layers if layer is not None]
    return Matrix(stack([layer.weight for layer in found]), stack([]), stack([layer.bias for layer in found]))
