"""How loss falls with compute: L = E + A · C^−α, fitted to the best run of each budget, and asked for a larger one.

C is the training compute, in TFLOP, and L the loss in bits per byte. E is what no compute would remove, α how
fast the rest goes (Kaplan et al. 2020; with E, Hoffmann et al. 2022). `fit` is least squares written out; `frontier`
picks the runs that a budget is best spent on, since a model too large or too small for it says nothing of the law.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinygpt.experiments.runs import Run

ALIKE = 1.1  # budgets within this factor count as one
TERA = 1e12


@dataclass(frozen=True)
class Law:
    """L = E + A · C^−α, C in TFLOP."""

    floor: float  # E, bits per byte
    factor: float  # A, bits per byte at one TFLOP
    exponent: float  # α

    def loss(self, compute: float) -> float:
        """What the law says of so many TFLOP."""
        return float(self.floor + self.factor * compute**-self.exponent)


def fit(compute: Sequence[float], loss: Sequence[float]) -> Law:
    """The law with the least sum of squared errors: three points or more, TFLOP and bits per byte.

    For a given α the law is a straight line in C^−α, whose E and A have a formula; so every α of a fine grid is tried.
    E is not let below zero.
    """
    C, L = np.asarray(compute, dtype=float), np.asarray(loss, dtype=float)
    best, least = Law(0.0, 0.0, 0.0), np.inf
    for exponent in np.arange(0.001, 2.0, 0.001):
        x = C**-exponent
        factor = ((x - x.mean()) * (L - L.mean())).sum() / ((x - x.mean()) ** 2).sum()
        floor = L.mean() - factor * x.mean()
        if floor < 0:
            floor, factor = 0.0, (x * L).sum() / (x**2).sum()
        error = ((floor + factor * x - L) ** 2).sum()
        if error < least:
            best, least = Law(float(floor), float(factor), float(exponent)), error
    return best


def frontier(runs: Sequence[Run]) -> list[Run]:
    """The best run of each budget at which more than one size was tried, from the smallest budget to the largest."""
    budgets: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.flops):
        if budgets and run.flops <= ALIKE * budgets[-1][0].flops:
            budgets[-1].append(run)
        else:
            budgets.append([run])
    return [min(b, key=lambda run: run.bits_per_byte) for b in budgets if len({run.parameters for run in b}) > 1]


def law_of(runs: Sequence[Run]) -> Law:
    """The law of some runs, which should be a frontier."""
    return fit([run.flops / TERA for run in runs], [run.bits_per_byte for run in runs])


def forecasts(runs: Sequence[Run], compute: float) -> tuple[float, float, float]:
    """What the law of a frontier says of so many TFLOP, and the least and most it says with one run left out."""
    without = [law_of([*runs[:i], *runs[i + 1 :]]).loss(compute) for i in range(len(runs))]
    whole = law_of(runs).loss(compute)
    return whole, min(whole, *without), max(whole, *without)
