"""Speed of each function of tinygpt/model/kernels.py on this machine, compared with PyTorch's own function.

    python -m benchmark.kernels

Forward and backward at the default model's sizes, interleaved in one run: the median of the ratios and their
interquartile range. Above 1: the kernel is faster.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt import console
from tinygpt.model import kernels

B, H, T, D = 8, 3, 128, 32  # of the default model
ROUNDS, CALLS = 15, 40
Pair = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def pairs() -> dict[str, Pair]:
    """Name → the kernel and PyTorch's own function, as calls without arguments."""
    x, weight = torch.randn(B, T, H * D, requires_grad=True), torch.ones(H * D, requires_grad=True)
    q, k, v = (torch.randn(B, H, T, D, requires_grad=True) for _ in range(3))
    low = [one.detach().bfloat16().requires_grad_() for one in (q, k, v)]
    return {
        "rms_norm": (lambda: kernels.rms_norm(x, weight, 1e-5), lambda: F.rms_norm(x, weight.shape, weight, 1e-5)),
        "causal_attention, bf16": (
            lambda: kernels.causal_attention(low[0], low[1], low[2]),
            lambda: F.scaled_dot_product_attention(low[0], low[1], low[2], is_causal=True),
        ),
        "causal_attention, dropout 0.1": (
            lambda: kernels.causal_attention(q, k, v, 0.1),
            lambda: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True),
        ),
        "dropout": (lambda: kernels.dropout(x, 0.1), lambda: F.dropout(x, 0.1)),
    }


def seconds(call: Callable[[], Tensor]) -> float:
    """The time of CALLS forward and backward passes."""
    start = time.perf_counter()
    for _ in range(CALLS):
        call().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    for name, (ours, theirs) in pairs().items():
        seconds(ours), seconds(theirs)  # warm-up
        ratios = [seconds(theirs) / seconds(ours) for _ in range(ROUNDS)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"{name}: {middle:.2f} times as fast ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    with console.prepared():
        main()
