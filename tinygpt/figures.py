"""Pictures of a run, one function each: they take numbers and a path, and write a PNG that is the same every time.

One look for all: readable in black and white, no decoration that carries nothing.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tinygpt.files import writing

DARK, LIGHT, ACCENT = "#1f3b57", "#a9bccd", "#c8553d"
STYLES = ["-", "--", ":", "-."]
LABELS = {"five_gram": "5-gram", "bz2": "bzip2 −9", "xz": "xz −9e", "ppmd": "PPMd"}


def loss_curves(
    path: Path, train: list[dict[str, float]], validation: list[dict[str, float]], yardsticks: dict[str, float]
) -> None:
    """Training loss (raw and smoothed), validation loss with its best point, and yardsticks as lines.

    Losses and yardsticks in nats per token; rows hold `step` and `loss`.
    """
    figure, axes = _canvas()
    steps, losses = _columns(train)
    axes.plot(steps, losses, color=LIGHT, linewidth=0.8, label="training, each batch")
    axes.plot(steps, smoothed(losses), color=DARK, linewidth=1.6, linestyle="--", label="training, smoothed")
    steps, losses = _columns(validation)
    axes.plot(steps, losses, color=ACCENT, linewidth=2, marker="o", markersize=3, label="validation")
    best = int(np.argmin(losses))
    axes.plot(steps[best], losses[best], "*", color=ACCENT, markersize=13, label=f"best: {losses[best]:.3f} nats")
    _mark_yardsticks(axes, yardsticks)
    axes.set(xlabel="step", ylabel="loss, nats per token", title="What the model has learned")
    axes.legend(frameon=False, fontsize=9)
    _write(figure, path)


def loss_by_position(path: Path, losses: np.ndarray) -> None:
    """Mean loss after 1, 2, … tokens of context: falling as long as more context helps. losses: (T,), nats."""
    figure, axes = _canvas()
    axes.plot(np.arange(1, len(losses) + 1), losses, color=LIGHT, linewidth=0.8, label="each position")
    edges = np.unique(np.round(2 ** np.arange(0, math.log2(len(losses)) + 0.5, 0.5)).astype(int))  # 1, 2, 3, 4, 6, 8, …
    groups = [losses[first - 1 : last - 1] for first, last in itertools.pairwise([*edges, len(losses) + 1])]
    centres = [math.sqrt(first * (first + len(group) - 1)) for first, group in zip(edges, groups, strict=True)]
    means = [group.mean() for group in groups]
    axes.plot(centres, means, color=DARK, linewidth=1.8, marker="o", markersize=4, label="mean of neighbours")
    axes.set(xlabel="tokens of context", ylabel="loss, nats per token", title="What context is worth")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend(frameon=False, fontsize=9)
    _write(figure, path)


def yardstick_bars(path: Path, bits_per_byte: float, error: float | None, yardsticks: dict[str, float]) -> None:
    """The model beside the yardsticks, in bits per byte: shorter is better."""
    marks = sorted([*yardsticks.items(), ("this model", bits_per_byte)], key=lambda mark: -mark[1])
    figure, axes = _canvas()
    axes.grid(visible=False)
    for row, (name, value) in enumerate(marks):
        ours = name == "this model"
        axes.barh(row, value, color=ACCENT if ours else LIGHT, xerr=error if ours else None, height=0.65)
        axes.text(value + 0.08, row, f"{value:.3f}", va="center", fontweight="bold" if ours else "normal")
    axes.set_yticks(range(len(marks)), [LABELS.get(name, name) for name, _ in marks])
    axes.set(xlabel="bits per byte of held-out text (less is better)", title="What the loss means")
    axes.set_xlim(0, max(value for _, value in marks) * 1.12)
    _write(figure, path)


def race(path: Path, curves: dict[str, list[tuple[float, float]]], marks: dict[str, float]) -> None:
    """Held-out loss against time: a curve for each system, (seconds, bits per byte); `marks` as lines.

    Seconds on a logarithmic scale. Names that begin with TinyGPT are ours. The high losses of a beginning are cut off.
    """
    figure, axes = _canvas()
    ours = [name for name in curves if name.startswith("TinyGPT")]
    for number, (name, curve) in enumerate(curves.items()):
        seconds, bits = zip(*curve, strict=True)
        color = ACCENT if name in ours else DARK
        style = STYLES[(ours.index(name) if name in ours else number) % len(STYLES)]
        label = f"{name}: {bits[-1]:.3f} after {seconds[-1]:.0f} s"
        axes.plot(seconds, bits, color=color, linewidth=1.8, linestyle=style, marker="o", markersize=3, label=label)
    lowest = min([*marks.values(), *(bits for curve in curves.values() for _, bits in curve)])
    axes.set(xlabel="seconds since the start", ylabel="bits per byte of held-out text", title="Loss against time")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(lowest - 0.1, lowest + 1.9)
    _mark_yardsticks(axes, marks)
    axes.legend(frameon=False, fontsize=9)
    _write(figure, path)


def smoothed(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """A running mean over `share` of the points (at least five), centred and shorter at the ends: (N,) → (N,)."""
    half = max(2, int(len(values) * share / 2))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    left = np.maximum(np.arange(len(values)) - half, 0)
    right = np.minimum(np.arange(len(values)) + half + 1, len(values))
    means: np.ndarray = (sums[right] - sums[left]) / (right - left)
    return means


def nats_per_token(yardsticks: dict[str, float], bytes_per_token: float) -> dict[str, float]:
    """Bits per byte → nats per token, of a tokenizer with so many bytes per token."""
    return {name: value * math.log(2) * bytes_per_token for name, value in yardsticks.items()}


def _mark_yardsticks(axes: Axes, yardsticks: dict[str, float]) -> None:
    """Thin labelled lines for the yardsticks that fall inside the picture; neighbours share a label."""
    low, high = axes.get_ylim()
    labels: dict[float, str] = {}
    for name, value in sorted(yardsticks.items(), key=lambda mark: mark[1]):
        if low < value < high:
            axes.axhline(value, color="0.45", linewidth=0.8, linestyle=STYLES[len(labels) % len(STYLES)])
            near = next((place for place in labels if abs(place - value) < (high - low) / 30), value)
            labels[near] = f"{labels[near]}, {LABELS.get(name, name)}" if near in labels else LABELS.get(name, name)
    for place, text in labels.items():
        where: Any = ("axes fraction", "data")
        axes.annotate(text, (1.01, place), xycoords=where, fontsize=8, va="center", color="0.3")


def _columns(rows: list[dict[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["step"] for row in rows]), np.array([row["loss"] for row in rows])


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")  # no pyplot: nothing global, no window
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    return figure, axes


def _write(figure: Figure, path: Path) -> None:
    options: dict[str, Any] = {"format": "png", "metadata": {"Software": None}}
    with writing(path) as partial:
        figure.savefig(partial, **options)
