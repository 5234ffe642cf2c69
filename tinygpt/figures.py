"""Pictures of a run, one function each: they take numbers and a path, and write a PNG that is the same every time.

One look for all: readable in black and white, no decoration that carries nothing. Pictures of the inside of a model are
in views.py, in the same look; words of a text are written here, so that what the font lacks becomes ▯ in all of them.
"""

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tinygpt.files import writing

DARK, LIGHT, ACCENT = "#1f3b57", "#a9bccd", "#c8553d"
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", LIGHT, DARK])  # white is nothing, dark is much
MONO = "DejaVu Sans Mono"  # comes with matplotlib
DPI = 120
STYLES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v"]
LABELS = {"five_gram": "5-gram", "bz2": "bzip2 −9", "xz": "xz −9e", "ppmd": "PPMd"}


def loss_curves(
    path: Path, train: list[dict[str, float]], validation: list[dict[str, float]], yardsticks: dict[str, float]
) -> None:
    """Training loss (raw and smoothed), validation loss with its best point, and yardsticks as lines.

    Losses and yardsticks in nats per token; rows hold `step` and `loss`.
    """
    figure, axes = canvas()
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
    save(figure, path)


def loss_by_position(path: Path, losses: np.ndarray) -> None:
    """Mean loss after 1, 2, … tokens of context: falling as long as more context helps. losses: (T,), nats."""
    figure, axes = canvas()
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
    save(figure, path)


def yardstick_bars(path: Path, bits_per_byte: float, error: float | None, yardsticks: dict[str, float]) -> None:
    """The model beside the yardsticks, in bits per byte: shorter is better."""
    marks = sorted([*yardsticks.items(), ("this model", bits_per_byte)], key=lambda mark: -mark[1])
    figure, axes = canvas()
    axes.grid(visible=False)
    for row, (name, value) in enumerate(marks):
        ours = name == "this model"
        axes.barh(row, value, color=ACCENT if ours else LIGHT, xerr=error if ours else None, height=0.65)
        axes.text(value + 0.08, row, f"{value:.3f}", va="center", fontweight="bold" if ours else "normal")
    axes.set_yticks(range(len(marks)), [LABELS.get(name, name) for name, _ in marks])
    axes.set(xlabel="bits per byte of held-out text (less is better)", title="What the loss means")
    axes.set_xlim(0, max(value for _, value in marks) * 1.12)
    save(figure, path)


def race(path: Path, curves: dict[str, list[tuple[float, float]]], marks: dict[str, float]) -> None:
    """Held-out loss against time: a curve for each system, (seconds, bits per byte); `marks` as lines.

    Seconds on a logarithmic scale. Names that begin with TinyGPT are ours. The high losses of a beginning are cut off.
    """
    figure, axes = canvas()
    ours = [name for name in curves if name.startswith("TinyGPT")]
    for number, (name, curve) in enumerate(curves.items()):
        seconds, bits = zip(*curve, strict=True)
        color = ACCENT if name in ours else DARK
        style = STYLES[(ours.index(name) if name in ours else number) % len(STYLES)]
        label = f"{name}: {bits[-1]:.3f} after {seconds[-1]:.0f} s"
        axes.plot(seconds, bits, color=color, linewidth=1.8, linestyle=style, marker="o", markersize=3, label=label)
    lowest = min([*marks.values(), *(bits for curve in curves.values() for _, bits in curve)])
    axes.set(xlabel="seconds since the start", ylabel="bits per byte of held-out text", title="Loss against time")
    _log_ticks(axes)
    axes.set_ylim(lowest - 0.1, lowest + 1.9)
    _mark_yardsticks(axes, marks)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    save(figure, path)


def scaling(
    path: Path,
    sizes: dict[str, list[tuple[float, float]]],
    forecast: dict[str, list[tuple[float, float]]],
    law: Callable[[float], float],
) -> None:
    """Loss against compute, both (TFLOP, bits per byte): a curve a size, the law through the best of each budget.

    The law is drawn on beyond what it was fitted to, as far as the larger sizes of `forecast`, which it has not seen.
    """
    figure, axes = canvas()
    for number, (name, curve) in enumerate(sizes.items()):
        compute, bits = zip(*curve, strict=True)
        shape: Any = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
        axes.plot(compute, bits, color=DARK, linewidth=0.8, linestyle=STYLES[number % 4], label=name, **shape)
    seen = max(compute for curve in sizes.values() for compute, _ in curve)
    least = min(compute for curve in sizes.values() for compute, _ in curve)
    most = max([seen, *(compute for curve in forecast.values() for compute, _ in curve)])
    for low, high, style, label in ((least, seen, "-", "the law"), (seen, most, "--", "its forecast")):
        line = np.geomspace(low, high, 50)
        axes.plot(line, [law(compute) for compute in line], style, color=ACCENT, linewidth=1.8, label=label)
    for name, curve in forecast.items():
        compute, bits = zip(*curve, strict=True)
        axes.plot(compute, bits, "*", color=ACCENT, markersize=11, label=f"{name}, measured")
    axes.set(
        xlabel="arithmetic of training, TFLOP", ylabel="bits per byte of held-out text", title="Loss against compute"
    )
    _log_ticks(axes)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def training_speed(path: Path, rows: list[dict[str, Any]]) -> None:
    """Training tokens a second, and the share of the machine's peak, over the batch size; one line a model size.

    rows: dictionaries of measuring.Training, with `mfu` beside.
    """
    figure, (left, right) = canvases(2)
    for number, size in enumerate(dict.fromkeys(row["size"] for row in rows)):
        ours = [row for row in rows if row["size"] == size]
        style: Any = {"color": DARK, "linestyle": STYLES[number % 4], "marker": MARKERS[number % 5], "label": size}
        left.plot([row["batch"] for row in ours], [row["tokens_per_second"] for row in ours], **style)
        right.plot([row["batch"] for row in ours], [100 * row["mfu"] for row in ours], **style)
    left.set(xlabel="batch, sequences", ylabel="tokens a second", title="Training speed", yscale="log")
    right.set(xlabel="batch, sequences", ylabel="%", title="Of the peak of matrix products", ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def memory_forecast(path: Path, rows: list[dict[str, Any]]) -> None:
    """Memory measured at the peak of a step, over the batch size, with the forecast as a line without marks."""
    figure, axes = canvas()
    for number, size in enumerate(dict.fromkeys(row["size"] for row in rows)):
        ours = sorted((row for row in rows if row["size"] == size), key=lambda row: row["batch"])
        batches = [row["batch"] for row in ours]
        marker = MARKERS[number % 5]
        axes.plot(batches, [row["memory"] / 1e6 for row in ours], marker, color=DARK, label=f"{size}, measured")
        axes.plot(batches, [row["forecast"] / 1e6 for row in ours], STYLES[number % 4], color=ACCENT)
    axes.set(xlabel="batch, sequences", ylabel="MB", title="Memory: measured (marks) and forecast (lines)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def decoding_speed(path: Path, rows: list[dict[str, Any]]) -> None:
    """Tokens a second of text written, over the model's size, one line for each number of sequences at once."""
    figure, axes = canvas()
    done = [row for row in rows if not row["problem"]]
    for number, count in enumerate(dict.fromkeys(row["sequences"] for row in done)):
        ours = [row for row in done if row["sequences"] == count]
        style: Any = {"color": DARK, "linestyle": STYLES[number % 4], "marker": MARKERS[number % 5]}
        speeds = [row["tokens_per_second"] for row in ours]
        axes.plot([row["parameters"] for row in ours], speeds, label=f"{count} at once", **style)
    axes.set(xlabel="parameters", ylabel="tokens a second", title="Decoding speed", xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


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


def ink(shade: float) -> str:
    """The colour of words on a shade, 0 to 1."""
    return "white" if shade > 0.72 else "black"


def name_ticks(axis: Axis, texts: list[str], size: float = 8, **style: Any) -> None:
    """Words at 0, 1, 2, … of an axis."""
    axis.set_tick_params(length=0)
    axis.set_ticks(range(len(texts)), [_drawable(text) for text in texts], family=MONO, fontsize=size, **style)


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Words of a text at a place, in a font of one width."""
    usual: dict[str, Any] = {"family": MONO, "fontsize": 10, "va": "center"}
    axes.text(x, y, _drawable(text), **(usual | style))


def _drawable(text: str) -> str:
    """Without signs that the font lacks; a dollar is a dollar, and begins no formula."""
    return "".join(sign if sign == "\n" or _has(ord(sign)) else "▯" for sign in text).replace("$", r"\$")


@functools.cache
def _has(code: int) -> bool:
    return bool(font_manager.get_font(font_manager.findfont(MONO)).get_char_index(code))


def _log_ticks(axes: Axes) -> None:
    """A logarithmic axis below, with numbers at 1, 2, 5, 10, 20, …"""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


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


def canvas() -> tuple[Figure, Axes]:
    figure, (axes,) = canvases(1)
    return figure, axes


def canvases(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many pictures side by side."""
    figure = Figure(figsize=(8, 4.5), dpi=DPI, layout="constrained")  # no pyplot: nothing global, no window
    found = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    return figure, found


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all, the same bytes every time."""
    options: dict[str, Any] = {"format": "png", "metadata": {"Software": None}}
    with writing(path) as partial:
        figure.savefig(partial, **options)
