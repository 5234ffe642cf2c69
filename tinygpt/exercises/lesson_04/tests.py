"""Lesson 4's exercises, tested."""

from collections.abc import Callable
from typing import Any

import torch

from tinygpt.exercises import need, same
from tinygpt.scratch import attention


def mix(yours: Callable[..., Any]) -> None:
    """as `attention_without_weights` in tinygpt/scratch/attention.py"""
    x = torch.tensor([[2.0, 0.0], [1.5, 0.5], [0.0, 1.0]])
    same(f"mix({x.tolist()})", yours(x.clone()), attention.attention_without_weights(x))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    same("mix(x), the first token", yours(x.clone())[0], attention.attention_without_weights(x)[0])
    same("mix(x)", yours(x.clone()), attention.attention_without_weights(x))


def hide_future(yours: Callable[..., Any]) -> None:
    """as `causal_mask` in tinygpt/scratch/attention.py"""
    scores = torch.arange(16.0).reshape(4, 4)
    given = scores.clone()
    same(f"hide_future({scores.int().tolist()})", yours(given), attention.causal_mask(scores))
    need(torch.equal(given, scores), "hide_future modified its input; make a new tensor")


def head(yours: Callable[..., Any]) -> None:
    """as `causal_head` in tinygpt/scratch/attention.py"""
    small = torch.tensor([[1.0], [2.0]])
    one, ten = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    call = "head([[1], [2]], [[1]], [[1]], [[10]])"
    same(call, yours(small, one, one, ten), attention.causal_head(small, (one, one, ten)))
    wide = [
        torch.tensor(rows) for rows in ([[1.0, 0], [1, 1]], [[1.0, 0], [0, 1]], [[0.0, 2], [1, 0]], [[9.0, 0], [0, 9]])
    ]
    call = f"head({', '.join(str(tensor.int().tolist()) for tensor in wide)})"
    same(call, yours(*wide), attention.causal_head(wide[0], (wide[1], wide[2], wide[3])))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 8, generator=generator)
    query, key, value = (torch.randn(8, 4, generator=generator) for _ in range(3))
    expected = attention.causal_head(x, (query, key, value))
    found = yours(x, query, key, value)
    same("of 6 tokens, head(x, …)", found, expected)
    later = torch.cat([x[:3], torch.randn(3, 8, generator=generator)])
    same("head(x, …) of the first 3 tokens, when later ones change", yours(later, query, key, value)[:3], expected[:3])
