"""Figures of a run, one function each: they take numbers and a path, and write a reproducible PNG.

A path that ends in .svg gets a smaller SVG, for the report.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.plots.style import (
    ACCENT,
    DARK,
    LABELS,
    LIGHT,
    MARKERS,
    STYLES,
    canvas,
    canvases,
    drawable,
    log_ticks,
    mark_baselines,
    save,
    smoothed,
)

Rows = list[dict[str, float]]
Points = list[tuple[float, float]]
COMPUTE = "training compute, TFLOP", "Loss against compute"  # x label and title for `learning`
SECONDS = "seconds since training began", "Loss against time"
TASK_MARKS: dict[str, dict[str, Any]] = {  # what stands beside a task's score → how it is drawn
    "chance": {"label": "chance", "marker": "|", "color": "black", "markersize": 12, "markeredgewidth": 2},
    "five_gram": {"label": "5-gram", "marker": "D", "color": DARK, "markersize": 5},
    "before": {"label": "before fine-tuning", "marker": "o", "color": ACCENT, "markersize": 6},
}


def loss_curves(path: Path, train: Rows, validation: Rows, baselines: dict[str, float]) -> None:
    """Training loss (raw and smoothed), validation loss with its best point, and baselines as lines.

    Losses and baselines are in nats per token; rows have `step` and `loss`.
    """
    figure, axes = canvas()
    steps, losses = _columns(train)
    axes.plot(steps, losses, color=LIGHT, linewidth=0.8, label="training, each batch")
    axes.plot(steps, smoothed(losses), color=DARK, linewidth=1.6, linestyle="--", label="training, smoothed")
    steps, losses = _columns(validation)
    axes.plot(steps, losses, color=ACCENT, linewidth=2, marker="o", markersize=3, label="validation")
    best = int(np.argmin(losses))
    axes.plot(steps[best], losses[best], "*", color=ACCENT, markersize=13, label=f"best: {losses[best]:.3f} nats")
    mark_baselines(axes, baselines)
    axes.set(xlabel="step", ylabel="loss, nats per token", title="What the model has learned")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def learning_rate(path: Path, train: Rows) -> None:
    """The learning rate of each step. train: rows with `step` and `learning_rate`."""
    figure, axes = canvas()
    steps, rates = _columns(train, "learning_rate")
    axes.plot(steps, rates, color=DARK, linewidth=1.8)
    top = int(np.argmax(rates))
    axes.plot(
        steps[top],
        rates[top],
        "*",
        color=ACCENT,
        markersize=11,
        label=f"peak: {rates[top]:.3g} at step {steps[top]:.0f}",
    )
    axes.set(xlabel="step", ylabel="learning rate", title="How far a step may go", ylim=(0, None))
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def gradient_norm(path: Path, train: Rows, limit: float) -> None:
    """The gradient norm before clipping, raw and smoothed, and the clipping threshold (0: none)."""
    figure, axes = canvas()
    steps, norms = _columns(train, "gradient_norm")
    axes.plot(steps, norms, color=LIGHT, linewidth=0.8, label="each step")
    axes.plot(steps, smoothed(norms), color=DARK, linewidth=1.6, linestyle="--", label="smoothed")
    if limit:
        cut = f"clipped above {limit:g}: {np.mean(norms > limit):.1%} of the steps"
        axes.axhline(limit, color=ACCENT, linewidth=1.2, linestyle=":", label=cut)
    axes.set(xlabel="step", ylabel="norm of the gradient", title="How steep the loss is", ylim=(0, None))
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def learning(path: Path, curves: dict[str, Points], baselines: dict[str, float], x_label: str, title: str) -> None:
    """Bits per byte over steps, compute or seconds: a curve for each run, with a star at its best point.

    curves: name → [(x, bits per byte)]; points at x = 0 are left out of the logarithmic axis.
    """
    figure, axes = canvas()
    shown = {name: [point for point in points if point[0] > 0] for name, points in curves.items()}
    for number, (name, points) in enumerate((name, points) for name, points in shown.items() if points):
        x, bits = (np.array(values) for values in zip(*points, strict=True))
        best = int(np.argmin(bits))
        style: Any = {"color": (ACCENT, DARK, "0.55")[number % 3], "marker": MARKERS[number % 5], "markersize": 4}
        label = f" {drawable(name or 'best')}: {bits[best]:.3f} at {_short(x[best])}"  # matplotlib drops _labels
        axes.plot(x, bits, linewidth=1.8, linestyle=STYLES[number % 4], label=label, **style)
        axes.plot(x[best], bits[best], "*", color=style["color"], markersize=13)
    axes.set(xlabel=x_label, ylabel="bits per byte of held-out text", title=title)
    log_ticks(axes)
    bottom = axes.get_ylim()[0]
    goal = max((value for value in baselines.values() if value < bottom), default=bottom)  # the next baseline below
    axes.set_ylim(min(bottom, goal - 0.03), None)
    mark_baselines(axes, baselines)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def loss_by_position(path: Path, losses: np.ndarray) -> None:
    """Mean loss after 1, 2, … tokens of context, which falls as long as more context helps. losses: (T,), in nats."""
    figure, axes = canvas()
    axes.plot(np.arange(1, len(losses) + 1), losses, color=LIGHT, linewidth=0.8, label="each position")
    edges = np.unique(np.round(2 ** np.arange(0, math.log2(len(losses)) + 0.5, 0.5)).astype(int))  # 1, 2, 3, 4, 6, 8, …
    edges = edges[edges <= len(losses)]
    groups = [losses[first - 1 : last - 1] for first, last in itertools.pairwise([*edges, len(losses) + 1])]
    centres = [math.sqrt(first * (first + len(group) - 1)) for first, group in zip(edges, groups, strict=True)]
    means = [group.mean() for group in groups]
    axes.plot(centres, means, color=DARK, linewidth=1.8, marker="o", markersize=4, label="mean of neighbours")
    axes.set(xlabel="tokens of context", ylabel="loss, nats per token", title="What context is worth")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def baseline_bars(path: Path, models: dict[str, tuple[float, float | None]], baselines: dict[str, float]) -> None:
    """Bits per byte of models and baselines as bars. models: name → (bits per byte, standard error or None)."""
    ours = [(name, value, error, True) for name, (value, error) in models.items()]
    bars = sorted([*ours, *((name, value, None, False) for name, value in baselines.items())], key=lambda bar: -bar[1])
    figure, axes = canvas()
    axes.grid(visible=False)
    for row, (_, value, error, bold) in enumerate(bars):
        axes.barh(row, value, color=ACCENT if bold else LIGHT, xerr=error, height=0.65)
        axes.text(value + 0.08, row, f"{value:.3f}", va="center", fontweight="bold" if bold else "normal")
    axes.set_yticks(range(len(bars)), [drawable(LABELS.get(name, name)) for name, *_ in bars])
    axes.set(xlabel="bits per byte of held-out text (less is better)", title="What the loss means")
    axes.set_xlim(0, max(value for _, value, *_ in bars) * 1.12)
    save(figure, path)


def before_and_after(path: Path, texts: dict[str, dict[str, float]]) -> None:
    """Bits per byte of each text before and after fine-tuning, as bars. texts: name → {`before`, `after`}."""
    figure, axes = canvas()
    axes.grid(visible=False)
    for row, bits in enumerate(reversed(texts.values())):
        for place, (when, colour) in enumerate((("after", ACCENT), ("before", LIGHT))):
            y = 2.6 * row + place
            axes.barh(y, bits[when], color=colour, height=0.85, label=when if row == 0 else None)
            change = f"  {bits['after'] / bits['before'] - 1:+.0%}" if when == "after" else ""
            axes.text(bits[when] + 0.05, y, f"{bits[when]:.3f}{change}", va="center")
    names = [drawable(name.replace("_", " ")) for name in reversed(texts)]
    axes.set_yticks([2.6 * row + 0.5 for row in range(len(texts))], names)
    axes.set(xlabel="bits per byte of held-out text (less is better)", title="Before and after fine-tuning")
    axes.set_xlim(0, max(max(bits.values()) for bits in texts.values()) * 1.25)
    axes.legend(frameon=False, fontsize=9, reverse=True)
    save(figure, path)


def task_bars(path: Path, tasks: dict[str, dict[str, float]]) -> None:
    """Scores with their 95% intervals as bars, and what stands beside them as marks.

    tasks: name → `score`, `low`, `high` and those of TASK_MARKS that apply, all in [0, 1].
    """
    figure, axes = canvas()
    figure.set_figheight(1.4 + 0.34 * len(tasks))
    axes.grid(visible=False)
    rows = list(reversed(tasks.values()))
    for row, each in enumerate(rows):
        reach = [[100 * (each["score"] - each["low"])], [100 * (each["high"] - each["score"])]]
        axes.barh(row, 100 * each["score"], xerr=reach, color=LIGHT, ecolor="0.35", height=0.7, error_kw={"capsize": 3})
        axes.text(103, row, f"{each['score']:.1%}", va="center", fontsize=9)
    for key, style in TASK_MARKS.items():
        places = [(100 * each[key], row) for row, each in enumerate(rows) if key in each]
        if places:
            axes.plot(*zip(*places, strict=True), linestyle="none", **style)
    axes.set_yticks(range(len(rows)), [drawable(name) for name in reversed(tasks)])
    axes.set(xlim=(0, 112), ylim=(-0.6, len(rows) - 0.4), xticks=range(0, 101, 20))
    axes.set(xlabel="right answers, % (an oracle has 100)", title="Tasks, with 95% intervals")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=len(TASK_MARKS), frameon=False, fontsize=9)
    save(figure, path)


def temperatures(path: Path, grid: list[dict[str, Any]], real: dict[str, Any]) -> None:
    """Diversity (distinct-2) and likelihood (bits per byte) of samples against temperature, a line for each top-p.

    grid: rows with `temperature`, `top_p`, `distinct_2` and `bits_per_byte`; real: the last two of held-out text.
    """
    figure, sides = canvases(2)
    names = (("distinct_2", "distinct-2", "Diversity"), ("bits_per_byte", "bits per byte", "Likelihood"))
    for axes, (key, label, title) in zip(sides, names, strict=True):
        for number, top_p in enumerate(sorted({row["top_p"] for row in grid})):
            ours = sorted(
                (row["temperature"], row[key]) for row in grid if row["top_p"] == top_p and row[key] is not None
            )
            style: Any = {"linestyle": STYLES[number % 4], "marker": MARKERS[number % 5], "label": f"top-p {top_p:g}"}
            axes.plot(*zip(*ours, strict=True) if ours else ([], []), color=DARK, linewidth=1.6, **style)
        if (level := real[key]) is not None:
            axes.axhline(level, color=ACCENT, linewidth=1.4, linestyle="-.", label="held-out text")
        axes.set(xlabel="temperature", ylabel=label, title=title)
    if grid:
        sides[0].legend(frameon=False, fontsize=9)
    save(figure, path)


def nats_per_token(baselines: dict[str, float], bytes_per_token: float) -> dict[str, float]:
    """Bits per byte → nats per token, for a tokenizer with this many bytes per token."""
    return {name: value * math.log(2) * bytes_per_token for name, value in baselines.items()}


def by_compute(validation: Rows, flops_per_step: float, bytes_per_token: float) -> Points:
    """[(training TFLOP, bits per byte)] of the validation steps."""
    return [(row["step"] * flops_per_step / 1e12, row["loss"] / math.log(2) / bytes_per_token) for row in validation]


def by_time(validation: Rows, seconds: dict[int, float], bytes_per_token: float) -> Points:
    """[(seconds, bits per byte)] of the validation steps with a known time. seconds: step → seconds."""
    return [
        (seconds[int(row["step"])], row["loss"] / math.log(2) / bytes_per_token)
        for row in validation
        if row["step"] in seconds
    ]


def _short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _columns(rows: Rows, key: str = "loss") -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["step"] for row in rows]), np.array([row[key] for row in rows])
