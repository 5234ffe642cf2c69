"""Figures of measurements: races, loss against compute, speed and memory.

Each takes numbers and a path, and writes a reproducible PNG. Figures of one run are in plots/curves.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.plots.style import ACCENT, DARK, MARKERS, STYLES, canvas, canvases, log_ticks, mark_baselines, save

Point = tuple[float, float]  # seconds, bits per byte


def race(path: Path, runs: dict[str, tuple[list[Point], Point]], baselines: dict[str, float]) -> None:
    """Held-out loss against time on a logarithmic scale; the high initial losses are cut off.

    runs: name → its curve, measured during training on part of the held-out text, and its final (seconds, loss) on all
    of it. Names that begin with TinyGPT are highlighted. baselines: drawn as lines.
    """
    figure, axes = canvas()
    ours = [name for name in runs if name.startswith("TinyGPT")]
    for number, (name, (curve, (done, reached))) in enumerate(runs.items()):
        seconds, bits = zip(*curve, strict=True)
        color = ACCENT if name in ours else DARK
        style = STYLES[(ours.index(name) if name in ours else number) % len(STYLES)]
        label = f"{name}: {reached:.3f} after {done:.0f} s"
        axes.plot(seconds, bits, color=color, linewidth=1.8, linestyle=style, marker=".", markersize=3, label=label)
        axes.plot(done, reached, marker="D", markersize=6, color=color)
    lowest = min([*baselines.values(), *(bits for curve, _ in runs.values() for _, bits in curve)])
    axes.set(xlabel="seconds since the start", ylabel="bits per byte of held-out text", title="Loss against time")
    log_ticks(axes)
    axes.set_ylim(lowest - 0.1, lowest + 1.9)
    mark_baselines(axes, baselines)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    save(figure, path)


def scaling(
    path: Path,
    sizes: dict[str, list[tuple[float, float]]],
    forecast: dict[str, list[tuple[float, float]]],
    law: Callable[[float], float],
) -> None:
    """Loss against compute, (TFLOP, bits per byte): one curve per size, and the law through the best of each budget.

    The law is extrapolated as far as the larger sizes in `forecast`, which it was not fitted to.
    """
    figure, axes = canvas()
    for number, (name, curve) in enumerate(sizes.items()):
        compute, bits = zip(*curve, strict=True)
        shape: Any = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
        axes.plot(compute, bits, color=DARK, linewidth=0.8, linestyle=STYLES[number % 4], label=name, **shape)
    fitted = max(compute for curve in sizes.values() for compute, _ in curve)
    least = min(compute for curve in sizes.values() for compute, _ in curve)
    most = max([fitted, *(compute for curve in forecast.values() for compute, _ in curve)])
    for low, high, style, label in ((least, fitted, "-", "the law"), (fitted, most, "--", "its forecast")):
        line = np.geomspace(low, high, 50)
        axes.plot(line, [law(compute) for compute in line], style, color=ACCENT, linewidth=1.8, label=label)
    for name, curve in forecast.items():
        compute, bits = zip(*curve, strict=True)
        axes.plot(compute, bits, "*", color=ACCENT, markersize=11, label=f"{name}, measured")
    axes.set(xlabel="training compute, TFLOP", ylabel="bits per byte of held-out text", title="Loss against compute")
    log_ticks(axes)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def training_speed(path: Path, rows: list[dict[str, Any]]) -> None:
    """Training tokens per second, and model FLOPs utilisation, by batch size; one line per model size.

    rows: measure.Training as dictionaries, with `mfu`.
    """
    figure, (left, right) = canvases(2)
    for number, size in enumerate(dict.fromkeys(row["size"] for row in rows)):
        ours = [row for row in rows if row["size"] == size]
        style: Any = {"color": DARK, "linestyle": STYLES[number % 4], "marker": MARKERS[number % 5], "label": size}
        left.plot([row["batch"] for row in ours], [row["tokens_per_second"] for row in ours], **style)
        right.plot([row["batch"] for row in ours], [100 * row["mfu"] for row in ours], **style)
    left.set(xlabel="batch, sequences", ylabel="tokens per second", title="Training speed", yscale="log")
    right.set(xlabel="batch, sequences", ylabel="%", title="Model FLOPs utilisation", ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def memory_forecast(path: Path, rows: list[dict[str, Any]]) -> None:
    """Peak memory of a step by batch size: measured as markers, forecast as lines."""
    figure, axes = canvas()
    for number, size in enumerate(dict.fromkeys(row["size"] for row in rows)):
        ours = sorted((row for row in rows if row["size"] == size), key=lambda row: row["batch"])
        batches = [row["batch"] for row in ours]
        marker = MARKERS[number % 5]
        axes.plot(batches, [row["memory"] / 1e6 for row in ours], marker, color=DARK, label=f"{size}, measured")
        axes.plot(batches, [row["forecast"] / 1e6 for row in ours], STYLES[number % 4], color=ACCENT)
    axes.set(xlabel="batch, sequences", ylabel="MB", title="Memory: measured (markers) and forecast (lines)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def decoding_speed(path: Path, rows: list[dict[str, Any]]) -> None:
    """Tokens per second of decoding by model size, one line per number of parallel sequences."""
    figure, axes = canvas()
    done = [row for row in rows if not row["problem"]]
    for number, count in enumerate(dict.fromkeys(row["sequences"] for row in done)):
        ours = [row for row in done if row["sequences"] == count]
        style: Any = {"color": DARK, "linestyle": STYLES[number % 4], "marker": MARKERS[number % 5]}
        speeds = [row["tokens_per_second"] for row in ours]
        axes.plot([row["parameters"] for row in ours], speeds, label=f"{count} at once", **style)
    axes.set(xlabel="parameters", ylabel="tokens per second", title="Decoding speed", xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
