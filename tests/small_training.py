"""Trainings small enough for a test: their settings, their start, a batch. `data` is the fixture of conftest.py."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tests.conftest import CPU, gpt_config, params
from tinygpt.data.dataset import Batch, evaluation_windows
from tinygpt.training.state import State, initial_state

Data = dict[str, np.ndarray]


def settings(**changes: Any) -> Any:
    """The `train` section of the tests' parameters, with some of its values changed."""
    return params(**{f"train__{key}": value for key, value in changes.items()}).train


def start(data: Data, chosen: Any, precision: str = "fp32", device: torch.device = CPU, **shape: Any) -> State:
    """A small model before its first step; `shape` changes values of the `model` section."""
    vocab_size = int(data["train"].max()) + 1
    return initial_state(gpt_config(vocab_size, **shape), chosen, seed=3, device=device, precision=precision)


def advance(steps: Iterator[State], count: int) -> None:
    """Take so many steps of a training."""
    for _ in range(count):
        next(steps)


def batch(data: Data, count: int, context: int = 16) -> Batch:
    """The first windows of the training split, all of one length."""
    return next(evaluation_windows(data["train"], context, count, limit=count * context))
