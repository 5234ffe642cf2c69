"""The style of all figures: readable in black and white, without decoration.

`figure, axes = canvas()`, draw, `save(figure, path)` → a reproducible PNG or SVG. Text from a run is drawn through
`write`, `name_ticks` and `drawable`, which replace characters that the font lacks by ▯.
"""

import functools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tinygpt.files.atomic import writing

DARK, LIGHT, ACCENT = "#1f3b57", "#a9bccd", "#c8553d"
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", LIGHT, DARK])  # white: 0, dark: 1
MONO = "DejaVu Sans Mono"  # comes with matplotlib
DPI = 120
REPORT = 5.6, 3.8  # inches: small enough for two columns of a report, or for a phone
STYLES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v"]
LABELS = {"five_gram": "5-gram", "bz2": "bzip2 −9", "xz": "xz −9e", "ppmd": "PPMd"}


def smoothed(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """A running mean over `share` of the points (at least five), centred and shorter at the ends: (N,) → (N,)."""
    half = max(2, int(len(values) * share / 2))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    left = np.maximum(np.arange(len(values)) - half, 0)
    right = np.minimum(np.arange(len(values)) + half + 1, len(values))
    means: np.ndarray = (sums[right] - sums[left]) / (right - left)
    return means


def ink(shade: float) -> str:
    """The text colour on a background of this shade (0 to 1)."""
    return "white" if shade > 0.72 else "black"


def name_ticks(axis: Axis, texts: list[str], size: float = 8, **style: Any) -> None:
    """Label the positions 0, 1, 2, … of an axis."""
    axis.set_tick_params(length=0)
    axis.set_ticks(range(len(texts)), [drawable(text) for text in texts], family=MONO, fontsize=size, **style)


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Write text at (x, y) in a monospaced font."""
    usual: dict[str, Any] = {"family": MONO, "fontsize": 10, "va": "center"}
    axes.text(x, y, drawable(text), **(usual | style))


def drawable(text: str) -> str:
    """Replace characters that the font lacks by ▯, and escape dollars, which would start a formula."""
    return "".join(char if char == "\n" or _has(ord(char)) else "▯" for char in text).replace("$", r"\$")


@functools.cache
def _has(code: int) -> bool:
    return bool(font_manager.get_font(font_manager.findfont(MONO)).get_char_index(code))


def log_ticks(axes: Axes) -> None:
    """Make the x axis logarithmic, with ticks at 1, 2, 5, 10, 20, …"""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def mark_baselines(axes: Axes, baselines: dict[str, float]) -> None:
    """Draw a thin labelled line for each baseline within the y limits; close lines share a label."""
    low, high = axes.get_ylim()
    labels: dict[float, str] = {}
    for name, value in sorted(baselines.items(), key=lambda baseline: baseline[1]):
        if low < value < high:
            axes.axhline(value, color="0.45", linewidth=0.8, linestyle=STYLES[len(labels) % len(STYLES)])
            near = next((place for place in labels if abs(place - value) < (high - low) / 30), value)
            labels[near] = f"{labels[near]}, {LABELS.get(name, name)}" if near in labels else LABELS.get(name, name)
    for place, text in labels.items():
        where: Any = ("axes fraction", "data")
        axes.annotate(text, (1.01, place), xycoords=where, fontsize=8, va="center", color="0.3")


def canvas() -> tuple[Figure, Axes]:
    figure, (axes,) = canvases(1)
    return figure, axes


def canvases(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes side by side."""
    figure = Figure(figsize=(8, 4.5), dpi=DPI, layout="constrained")  # no pyplot: nothing global, no window
    found = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    return figure, found


def save(figure: Figure, path: Path) -> None:
    """Write a PNG or SVG, by the suffix of `path`: atomically, and with the same bytes every time."""
    kind = path.suffix[1:]
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    if kind == "svg":
        figure.set_size_inches(*REPORT)
    with writing(path) as partial, matplotlib.rc_context({"svg.hashsalt": "tinygpt"}):
        figure.savefig(partial, format=kind, metadata=metadata)
