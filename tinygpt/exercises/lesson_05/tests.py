"""Lesson 5's exercises, tested."""

from collections.abc import Callable
from typing import Any

import torch

from tinygpt.exercises import same
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.model.gpt import count_parameters as counted
from tinygpt.scratch import layers

SHAPE = {
    "vocab_size": 50,
    "n_layer": 2,
    "n_head": 2,
    "n_kv_head": None,
    "head_dim": None,
    "n_embd": 8,
    "mlp_hidden": 12,
    "context_length": 16,
    "norm": "rmsnorm",
    "norm_eps": 1e-5,
    "position": "rope",
    "rope_theta": 500.0,
    "mlp": "swiglu",
    "qk_norm": True,
    "bias": False,
    "tie_embeddings": False,
    "dropout": 0.0,
}


def rms_norm(yours: Callable[..., Any]) -> None:
    """as `rms_norm` in tinygpt/scratch/layers.py"""
    same(
        "rms_norm([3, 4], [1, 1], 0)",
        yours(torch.tensor([3.0, 4.0]), torch.ones(2), 0.0),
        torch.tensor([3.0, 4.0]) / 12.5**0.5,
    )
    x, weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([1.0, 2.0])
    same("rms_norm([[3, 4], [0, 2]], [1, 2], 0)", yours(x, weight, 0.0), layers.rms_norm(x, weight, 0.0))
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    weight = torch.linspace(0.5, 2, 6)
    same("rms_norm(x, weight, 1e-5)", yours(x, weight, 1e-5), layers.rms_norm(x, weight, 1e-5))
    same("rms_norm of zeros", yours(torch.zeros(1, 6), weight, 1e-5), torch.zeros(1, 6))


def swiglu(yours: Callable[..., Any]) -> None:
    """as MLP in tinygpt/scratch/layers.py"""
    one, two, three = (torch.tensor([[number]]) for number in (1.0, 2.0, 3.0))
    call = "swiglu([1], gate [[2]], up [[3]], down [[1]])"
    same(call, yours(one[0], two, three, one), 6 * torch.tensor([2.0]).sigmoid())
    mlp = layers.MLP(GPTConfig(**SHAPE))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        gate, up, down = (parameter.normal_(generator=generator) for parameter in mlp.parameters())
        x = torch.randn(2, 3, 8, generator=generator)
        same("swiglu(x, gate, up, down)", yours(x, gate, up, down), mlp(x))


def count_parameters(yours: Callable[..., Any]) -> None:
    """as `count_parameters` in tinygpt/model/gpt.py"""
    for n_layer, n_embd, vocab_size in ((1, 8, 50), (3, 96, 2000)):
        shape = SHAPE | {"n_layer": n_layer, "n_embd": n_embd, "vocab_size": vocab_size}
        expected = counted(GPT(GPTConfig(**shape)))  # type: ignore[arg-type]
        call = f"count_parameters({vocab_size}, {n_embd}, {n_embd // 2}, 12, {n_layer})"
        same(call, yours(vocab_size, n_embd, n_embd // 2, 12, n_layer), expected)
