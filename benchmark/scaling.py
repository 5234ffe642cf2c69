"""Scaling law of loss and compute, L = E + A · C^−α, fitted to the best run of each budget and extrapolated.

C is the training compute in TFLOP, L the loss in bits per byte, E the irreducible loss and α the exponent (Kaplan et
al. 2020; with E, Hoffmann et al. 2022). `fit` is least squares; `frontier` picks the best run of each budget, because
models too large or too small for a budget are above the law.
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
        """The loss that the law predicts for a compute in TFLOP."""
        return float(self.floor + self.factor * compute**-self.exponent)


def fit(compute: Sequence[float], loss: Sequence[float]) -> Law:
    """The law with the least squared error over three or more points, TFLOP and bits per byte; E ≥ 0.

    For a given α the law is linear in C^−α, with a closed form for E and A; so every α of a fine grid is tried.
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
    """The best run of each budget with more than one size, by increasing budget."""
    budgets: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.flops):
        if budgets and run.flops <= ALIKE * budgets[-1][0].flops:
            budgets[-1].append(run)
        else:
            budgets.append([run])
    return [min(b, key=lambda run: run.bits_per_byte) for b in budgets if len({run.parameters for run in b}) > 1]


def law_of(runs: Sequence[Run]) -> Law:
    """The law fitted to the runs of a frontier."""
    return fit([run.flops / TERA for run in runs], [run.bits_per_byte for run in runs])


def forecasts(runs: Sequence[Run], compute: float) -> tuple[float, float, float]:
    """A frontier's forecast for a compute in TFLOP, and its minimum and maximum with one run left out."""
    without = [law_of([*runs[:i], *runs[i + 1 :]]).loss(compute) for i in range(len(runs))]
    whole = law_of(runs).loss(compute)
    return whole, min(whole, *without), max(whole, *without)
