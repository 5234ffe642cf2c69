"""Trainings small enough for a test: their settings, their start, a batch. `data` is the fixture of conftest.py."""

from collections.abc import Iterator
from typing import Any

import torch

from tests.conftest import CPU, gpt_config, params
from tinygpt.data.dataset import Batch, TokenDataset
from tinygpt.training.state import State, initial_state

Data = dict[str, TokenDataset]


def settings(**changes: Any) -> Any:
    """The `train` section of the tests' parameters, with some of its values changed."""
    return params(**{f"train__{key}": value for key, value in changes.items()}).train


def start(data: Data, chosen: Any, precision: str = "fp32", device: torch.device = CPU, **shape: Any) -> State:
    """A small model before its first step; `shape` changes values of the `model` section."""
    return initial_state(gpt_config(vocab_size(data), **shape), chosen, seed=3, device=device, precision=precision)


def vocab_size(data: Data) -> int:
    """The fewest entries of a vocabulary that has every token of the training split."""
    return 1 + max(int(ids.max()) for windows in data["train"].evaluation(64) for ids in windows)


def advance(steps: Iterator[State], count: int) -> None:
    """Take so many steps of a training."""
    for _ in range(count):
        next(steps)


def batch(data: Data, count: int) -> Batch:
    """Windows of the training split, spread evenly, all of one length."""
    return next(data["train"].evaluation(count, limit=count * data["train"].context_length))
