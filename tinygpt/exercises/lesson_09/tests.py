"""Lesson 9's exercises, tested."""

import itertools
import statistics
from collections.abc import Callable
from typing import Any

from tinygpt.config import Train
from tinygpt.exercises import same
from tinygpt.training.optimizer import schedule


def learning_rate(yours: Callable[..., Any]) -> None:
    """as `schedule` in tinygpt/training/optimizer.py"""
    for steps, warmup in ((100, 10), (20, 0)):
        settings = Train.model_construct(steps=steps, warmup_steps=warmup, schedule="linear", final_fraction=0.0)
        for step in (0, 1, 9, 10, 11, steps - 1):
            expected = 0.01 * schedule(step, settings)
            same(f"learning_rate({step}, {steps}, {warmup}, 0.01)", yours(step, steps, warmup, 0.01), expected)


def grid(yours: Callable[..., Any]) -> None:
    """as `dvc exp run --queue` makes experiments of -S options"""
    several: list[dict[str, list[Any]]] = [
        {"a": [1, 2], "b": [3, 4]},
        {"seed": [1, 2, 3]},
        {},
        {"a": [1, 2], "b": ["x"], "c": [True, False]},
    ]
    for settings in several:
        expected = [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]
        same(f"grid({settings})", yours(settings), expected)


def apart(yours: Callable[..., Any]) -> None:
    """as `welch` in tinygpt/experiments/compare.py computes Welch's t"""
    for ours, theirs in (([2.36, 2.37, 2.35], [2.39, 2.40, 2.38]), ([2.1, 2.3], [2.0, 2.4, 2.2, 2.1])):
        uncertainty = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
        expected = (statistics.mean(ours) - statistics.mean(theirs)) / uncertainty
        same(f"apart({ours}, {theirs})", yours(list(ours), list(theirs)), expected)
