"""The decoder of a CPU: the compiled loops of loops.py, on the weights of a model.

`decoder_of(model, B)` chooses between it and the one of decoder.py.
"""

import math
import os
import warnings
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tinygpt.generation.cpu.layout import FEW, LANES, Layout, weight_type
from tinygpt.generation.decoder import Decoder, TorchDecoder
from tinygpt.model.gpt import GPT
from tinygpt.model.quantization import WeightType

try:
    from tinygpt.generation.cpu import compiled
except ImportError as problem:  # llvmlite is missing, or has nothing for this machine
    MISSING: str | None = str(problem)
else:
    MISSING = None

ARGUMENTS = 18  # of `loops.entry`
WORK_PER_THREAD = 2**21  # multiplications for which waking another thread pays, which takes some 100 microseconds


def decoder_of(model: GPT, batch: int) -> Decoder:
    """The fastest decoder of a model for B sequences: compiled loops on a CPU, else PyTorch's."""
    weights = weight_type(model)
    if weights is None:
        return TorchDecoder(model, batch)
    problem = prepare(weights)
    if problem:
        warnings.warn(f"PyTorch decodes instead, more slowly: {problem}. `pip install numba`", stacklevel=2)
        return TorchDecoder(model, batch)
    return LoopDecoder(model, batch)


def is_ready(device: torch.device, weights: WeightType = "fp32") -> bool:
    """Whether decoding can start at once; on a CPU the loops for such weights may have to be compiled, which takes some
    ten seconds.
    """
    try:
        return device.type != "cpu" or bool(MISSING) or compiled.read(weights) is not None
    except Exception:  # numba is missing, or the like: `prepare` says what
        return True


@cache
def prepare(weights: WeightType = "fp32") -> str | None:
    """Load what a CPU needs to decode with such weights, or compile it first; why not, if numba cannot."""
    if MISSING:
        return MISSING
    try:
        compiled.load(weights, loops_for, ARGUMENTS)
    except Exception as problem:  # numba is missing, or cannot compile for this machine
        return str(problem)
    return None


def loops_for(weights: WeightType) -> Any:
    """The loops, for numba to compile."""
    from tinygpt.generation.cpu import loops  # which imports numba, in half a second

    return loops.entry(weights)


class LoopDecoder(Decoder):
    """Decodes B sequences at once, with the model's own weights; several threads share large steps."""

    def __init__(self, model: GPT, batch: int) -> None:
        super().__init__(model.config, batch)
        weights = weight_type(model)
        assert weights is not None
        self.layout, self.loops = Layout(model), compiled.load(weights, loops_for, ARGUMENTS)
        self.multiplications = sum(tensor.numel() for tensor in self.layout.memory)  # for a token, about
        config = model.config
        size = (config.n_layer, batch, config.kv_heads, config.context_length, config.head_width)
        self.keys, self.values = (torch.zeros(size, dtype=torch.float32, device="cpu") for _ in range(2))

    @property
    def cache_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def select_rows(self, rows: list[int]) -> None:
        super().select_rows(rows)
        self.keys, self.values = (kept[:, rows].contiguous() for kept in (self.keys, self.values))

    def copy_row(self, row: int, others: list[int], count: int) -> None:
        for kept in (self.keys, self.values):
            kept[:, others, :, :count] = kept[:, row : row + 1, :, :count]

    def read(self, texts: list[tuple[int, ...]], rows: list[int]) -> None:
        self.forward(texts, rows, [0] * len(rows), float32(0, self.config.vocab_size))

    def step(self, tokens: list[int], at: list[int]) -> Tensor:
        logits = float32(len(tokens), self.config.vocab_size)
        self.forward([(token,) for token in tokens], list(range(len(tokens))), at, logits)
        return logits

    def forward(self, texts: list[tuple[int, ...]], rows: list[int], starts: list[int], logits: Tensor) -> None:
        """Read texts, each from a position of its row of the cache on; threads take some of the texts each."""
        unknown = [token for text in texts for token in text if not 0 <= token < self.config.vocab_size]
        if unknown:  # loops would read on, wherever that is
            raise IndexError(f"{unknown[0]} is no token of a vocabulary of {self.config.vocab_size}.")
        end = max((start + len(text) for start, text in zip(starts, texts, strict=True)), default=0)
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens do not fit into a context of {self.config.context_length}.")
        total = sum(map(len, texts))
        useful = min(len(texts), math.ceil(total / LANES), math.ceil(total * self.multiplications / WORK_PER_THREAD))
        threads = max(1, min(torch.get_num_threads(), useful))

        def work(thread: int) -> None:
            mine = slice(len(texts) * thread // threads, len(texts) * (thread + 1) // threads)
            self.run(texts[mine], rows[mine], starts[mine], total > FEW, logits[mine])

        others = [pool(os.getpid()).submit(work, thread) for thread in range(1, threads)]
        work(0)
        for other in others:
            other.result()

    def run(
        self, texts: list[tuple[int, ...]], rows: list[int], starts: list[int], batched: bool, logits: Tensor
    ) -> None:
        """Call the loops for some texts."""
        numbers = [token for text in texts for token in text]
        N = len(numbers)
        for row, text in zip(rows, texts, strict=True):
            numbers += [row] * len(text)
        for start, text in zip(starts, texts, strict=True):
            numbers += range(start, start + len(text))
        layout, floats = self.layout, N * self.layout.floats_per_token
        tokens, size = array("q", numbers), 8 * N
        first, _ = tokens.buffer_info()
        buffer = float32(layout.scratch + floats)
        self.loops(
            *self.layout.pointers, first, first + size, first + 2 * size, N, batched,
            self.keys.data_ptr(), self.values.data_ptr(), self.keys.shape[1],
            logits.data_ptr(), *logits.shape, buffer.data_ptr(), layout.scratch, floats,
        )  # fmt: skip


def float32(*shape: int) -> Tensor:
    """Memory for the loops, whatever PyTorch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


@cache
def pool(process: int) -> ThreadPoolExecutor:
    """Threads for this process: a forked child has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count())
