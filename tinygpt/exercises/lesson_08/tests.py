"""Lesson 8's exercises, tested."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tinygpt.exercises import need, same
from tinygpt.exercises.lesson_05.tests import SHAPE
from tinygpt.generation.cpu.decoder import decoder_of
from tinygpt.model.gpt import GPT, GPTConfig


def kv_cache_bytes(yours: Callable[..., Any]) -> None:
    """as much as a decoder of tinygpt/generation takes"""
    for n_layer, heads, sequences in ((2, 2, 1), (3, 1, 16)):
        shape = SHAPE | {"n_layer": n_layer, "n_kv_head": heads}
        decoder = decoder_of(GPT(GPTConfig(**shape)), sequences)  # type: ignore[arg-type]
        call = f"kv_cache_bytes({n_layer}, {heads}, 4, 16, {sequences}, 4)"
        same(call, yours(n_layer, heads, 4, 16, sequences, 4), decoder.cache_bytes)


def training_bytes(yours: Callable[..., Any]) -> None:
    """as much as PyTorch's AdamW keeps of them"""
    parameter = torch.nn.Parameter(torch.ones(1000))
    parameter.sum().backward()
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    memory = optimizer.state[parameter]
    kept = [parameter, parameter.grad, memory["exp_avg"], memory["exp_avg_sq"]]
    same("training_bytes(1000)", yours(1000), sum(tensor.nbytes for tensor in kept if tensor is not None))


def accumulate(yours: Callable[..., Any]) -> None:
    """as `Passes.accumulate` in tinygpt/training/passes.py"""
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator)
    weight, largest = torch.ones(3), []

    def gradient_of_sum(x: Tensor, y: Tensor) -> Tensor:  # of the squared errors of x @ weight
        largest.append(len(x))
        return 2 * x.T @ (x @ weight - y)

    same(
        "accumulate(…, size=2) of 5 sequences",
        yours(gradient_of_sum, inputs, targets, 2),
        gradient_of_sum(inputs, targets) / 5,
    )
    most = max(largest[:-1])  # the last is of what is expected
    need(most <= 2, f"a part should hold at most 2 sequences; one of yours holds {most}")
