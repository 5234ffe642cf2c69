"""Lesson 3's exercises, tested."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tinygpt.data.dataset import TokenDataset
from tinygpt.exercises import same
from tinygpt.scratch import embedding


def windows(yours: Callable[..., Any]) -> None:
    """as TokenDataset in tinygpt/data/dataset.py"""
    tokens = np.arange(5, 25, dtype=np.uint16)
    for starts, length in (([0, 2], 2), ([3, 0, 9], 4)):
        expected = TokenDataset(tokens, length).__getitems__(starts)
        same(f"windows(tensor([5, 6, … 24]), {starts}, {length})", yours(torch.arange(5, 25), starts, length), expected)


def embed(yours: Callable[..., Any]) -> None:
    """as `look_up` and `learned_positions` in tinygpt/scratch/embedding.py"""
    table = torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    positions = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    for tokens in (torch.tensor([[3]]), torch.tensor([[1, 2, 1], [3, 0, 2]])):
        expected = embedding.learned_positions(embedding.look_up(table, tokens), positions)
        call = f"embed({tokens.tolist()}, {table.int().tolist()}, {positions.int().tolist()})"
        same(call, yours(tokens, table, positions), expected)


def rotate(yours: Callable[..., Any]) -> None:
    """as `rotate` in tinygpt/scratch/embedding.py"""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    all_positions = embedding.rotate(x.expand(1, 8, 1, 6), 500.0)[0, :, 0]  # (8, 6)
    for position in (0, 1, 7):
        same(f"rotate([1, 2, 3, 4, 5, 6], {position}, 500)", yours(x.clone(), position, 500.0), all_positions[position])
