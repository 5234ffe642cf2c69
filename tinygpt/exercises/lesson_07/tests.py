"""Lesson 7's exercises, tested."""

import math
from collections.abc import Callable
from typing import Any

from tinygpt.exercises import same
from tinygpt.scratch import sampling

LOGITS = [2.0, -1.0, 0.5, 3.0, 2.5]
PROBABILITIES = [0.2, 0.02, 0.08, 0.4, 0.3]


def probabilities(yours: Callable[..., Any]) -> None:
    """as `softmax` in tinygpt/scratch/sampling.py"""
    for temperature in (1.0, 0.5, 2.0, 0.001, 0):
        call = f"probabilities({LOGITS}, {temperature})"
        same(call, yours(list(LOGITS), temperature), sampling.softmax(LOGITS, temperature))


def top_p(yours: Callable[..., Any]) -> None:
    """as `keep_top_p` in tinygpt/scratch/sampling.py"""
    same("top_p([0.2, 0.5, 0.3], 0.6)", yours([0.2, 0.5, 0.3], 0.6), [0.0, 0.625, 0.375])
    for p in (0.1, 0.65, 0.95):
        same(f"top_p({PROBABILITIES}, {p})", yours(list(PROBABILITIES), p), sampling.keep_top_p(PROBABILITIES, p))


def sample_from(yours: Callable[..., Any]) -> None:
    """as `sample_from` in tinygpt/scratch/sampling.py"""
    for probabilities in (PROBABILITIES, [0.0, 0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]):
        for number in (0.0, 0.19, 0.2, 0.5, 0.69, 0.71, 0.999999999999):
            expected = sampling.sample_from(probabilities, number)
            same(
                f"sample_from({[round(p, 3) for p in probabilities]}, {number})",
                yours(list(probabilities), number),
                expected,
            )
    tenths, number = [*[0.1] * 10, 0.0], math.nextafter(1, 0)  # which is also what ten tenths sum to, in floats
    same(f"sample_from({tenths}, {number})", yours(list(tenths), number), sampling.sample_from(tenths, number))
