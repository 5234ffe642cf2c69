"""Decoders: the logits of `model(tokens)`, one token at a time, with a KV cache.

`decoder = decoder_of(model, B)`; `decoder.logits(windows)` → the next token's logits of B sequences of any lengths. On
a CPU, compiled loops compute them (cpu/decoder.py); on a GPU, the model's own modules (TorchDecoder, below).
scratch/kv_cache.py is the reference implementation.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.gpt import GPT, GPTConfig

PLAIN = 16  # steps before one is recorded, which takes as long: rows may end, and then it has to be done anew
READ = 1024  # tokens that are read at once; more take memory, and no less time


class Decoder(ABC):
    """Keeps keys and values of B sequences, so that each token is computed once."""

    def __init__(self, config: GPTConfig, batch: int) -> None:
        self.config = config
        self.lengths = [0] * batch  # how many tokens of each sequence it holds

    def logits(self, windows: list[list[int]]) -> Tensor:
        """Logits of the next token of each sequence: float32 (B, V), on the model's device.

        windows: the ids that the model is to see of each, 1 … context_length of them. One that has grown by a token
        since the last call costs that token; any other is read anew, and once where several are alike.
        """
        fresh: dict[tuple[int, ...], list[int]] = {}  # texts, and the rows that begin with each
        for row, (window, length) in enumerate(zip(windows, self.lengths, strict=True)):
            if len(window) != length + 1:
                fresh.setdefault(tuple(window[:-1]), []).append(row)
        self.prefill({text: rows for text, rows in fresh.items() if text})
        logits = self.step([window[-1] for window in windows], [len(window) - 1 for window in windows])
        self.lengths = [len(window) for window in windows]
        return logits

    def prefill(self, texts: dict[tuple[int, ...], list[int]]) -> None:
        """Read texts from position 0 on, so many at once as are no more than READ tokens; at least one."""
        waiting = sorted(texts, key=len)
        while waiting:
            count = 1
            while count < len(waiting) and (count + 1) * len(waiting[count]) <= READ:
                count += 1
            now, waiting = waiting[:count], waiting[count:]
            self.read(now, [texts[text][0] for text in now])
            for text in now:
                if len(texts[text]) > 1:
                    self.copy_row(texts[text][0], texts[text][1:], len(text))

    @property
    @abstractmethod
    def cache_bytes(self) -> int:
        """The memory of keys and values."""

    def select_rows(self, rows: list[int]) -> None:
        """Keep only these sequences, in this order."""
        self.lengths = [self.lengths[row] for row in rows]

    @abstractmethod
    def read(self, texts: list[tuple[int, ...]], rows: list[int]) -> None:
        """Keep keys and values of N texts, each in its row of the cache."""

    @abstractmethod
    def copy_row(self, row: int, others: list[int], count: int) -> None:
        """Copy the first `count` positions of a row of the cache to others."""

    @abstractmethod
    def step(self, tokens: list[int], at: list[int]) -> Tensor:
        """Read the last token of each sequence, at these positions; the next one's logits: float32 (B, V)."""


class TorchDecoder(Decoder):
    """Decodes with the model's own modules, on any device; on CUDA a step is recorded once and replayed."""

    def __init__(self, model: GPT, batch: int) -> None:
        super().__init__(model.config, batch)
        config, weight = model.config, model.token_embedding.weight
        self.model, self.device = model, weight.device
        shape = (config.n_layer, 2, batch, config.kv_heads, config.context_length, config.head_width)
        self.cache = weight.new_zeros(shape)  # keys and values; what the mask hides must still be a number
        self.newest = torch.zeros(2, batch, 1, dtype=torch.int64, device=self.device)  # tokens and their positions
        self.replay: CUDAGraphRunner[Tensor] = CUDAGraphRunner(self.device, PLAIN)

    @property
    def cache_bytes(self) -> int:
        return self.cache.nbytes

    def select_rows(self, rows: list[int]) -> None:
        super().select_rows(rows)
        self.cache, self.newest = self.cache[:, :, rows], self.newest[:, : len(rows)]

    def copy_row(self, row: int, others: list[int], count: int) -> None:
        self.cache[:, :, others, :, :count] = self.cache[:, :, row : row + 1, :, :count]

    @torch.inference_mode()
    def read(self, texts: list[tuple[int, ...]], rows: list[int]) -> None:
        T = max(map(len, texts))  # what fills up a shorter text lies behind its end, where its next tokens come to lie
        tokens = torch.tensor([[*text, *[0] * (T - len(text))] for text in texts], device=self.device)
        at = torch.arange(T, device=self.device).expand(len(texts), T)
        self.blocks(tokens, at, torch.tensor(rows, device=self.device), T)

    @torch.inference_mode()
    def step(self, tokens: list[int], at: list[int]) -> Tensor:
        self.newest.copy_(torch.tensor([tokens, at])[..., None])
        # Recorded work keeps its shapes: it looks at the whole context each time
        end = self.config.context_length if self.replay.on_cuda else max(at) + 1
        return self.replay(lambda: self.next_logits(end), [self.cache])

    def next_logits(self, end: int) -> Tensor:
        tokens, at = self.newest
        x = self.blocks(tokens, at, torch.arange(len(tokens), device=self.device), end)
        logits: Tensor = self.model.head(self.model.norm(x))[:, -1]
        return logits

    def blocks(self, tokens: Tensor, at: Tensor, rows: Tensor, end: int) -> Tensor:
        """The stack for tokens (N, T) at positions `at` (N, T) before `end`, of N rows of the cache: (N, T, C)."""
        x = self.model.embed(tokens, at)
        seen = torch.arange(end, device=self.device) <= at[:, None, :, None]  # (N, 1, T, end)
        for block, (keys, values) in zip(list[Any](self.model.blocks), self.cache, strict=True):
            q, k, v = block.attention.project(block.norm1(x), self.model.rotary, at)
            keys[rows[:, None], :, at], values[rows[:, None], :, at] = k.transpose(1, 2), v.transpose(1, 2)
            y = F.scaled_dot_product_attention(q, keys[rows, :, :end], values[rows, :, :end], seen, enable_gqa=True)
            x = x + block.attention.output(y.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
        return x
