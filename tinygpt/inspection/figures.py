"""Figures of model internals, one function each: `draw(folder, names, subject, …)`.

Maps and tables use one colour scale, and token labels from text.py. The same views in a terminal: cli/inspect_text.py.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tinygpt.generation.sampling import Sampling
from tinygpt.inspection import activations
from tinygpt.inspection.activations import MOST_BITS, Activations, spread
from tinygpt.inspection.text import Subject, displayed_tokens, label, merge_ladders
from tinygpt.plots.curves import loss_by_position
from tinygpt.plots.style import DARK, DPI, LIGHT, SHADES, ink, name_ticks, save, write

WEIGHT_SCALE = PowerNorm(0.5, 0, 1)  # a square root makes small weights visible
PANELS = 6  # most blocks, and most heads, in one figure
DEPTHS = 9  # most depths of the logit lens
ROWS = 48  # most rows of a table; a longer text shows its last tokens
COLUMNS, LINES = 80, 40  # of a page of text
ROW = 0.215  # inches: height of a table row


def draw(
    folder: Path,
    names: Collection[str],
    subject: Subject,
    settings: Sampling,
    blocks: Sequence[int],
    heads: Sequence[int],
    advance: Callable[[int], object] = lambda views: None,
) -> list[Path]:
    """Write the views in `names` (see activations.VIEWS) to `<folder>/<view>.png`; returns the files.

    blocks, heads: the ones that `attention` maps, counted from 0. `position` also writes by_position.png if that loss
    is known. `advance` is called with 1 after each view.
    """
    whole = activations.get_activations(subject.model, subject.text)
    acts = whole.first(subject.short)
    files = {name: folder / f"{name}.png" for name in activations.VIEWS if name in names}
    for name, path in files.items():
        match name:
            case "tokens":
                tokens(path, subject, acts)
            case "embeddings":
                embeddings(path, subject)
            case "position":
                position(
                    path, activations.position_similarity(subject.model), activations.rotary_products(subject.model)
                )
            case "attention":
                attention(path, subject, acts, blocks, heads)
            case "lens":
                lens(path, subject, acts)
            case "next":
                next_token(path, subject, acts, settings)
            case "surprisal":
                surprisal(path, subject, whole)
        advance(1)
    if "position" in files and subject.by_position is not None:
        files["by_position"] = folder / "by_position.png"
        loss_by_position(files["by_position"], subject.by_position)
    return list(files.values())


def tokens(path: Path, subject: Subject, acts: Activations) -> None:
    """Each token of a text above its id, and the BPE merges of its longest words."""
    ids = acts.ids.tolist()
    labels = [label(subject.tokenizer, token) for token in ids]
    wide = [max(len(text), len(str(token))) + 1 for text, token in zip(labels, ids, strict=True)]
    places = _typeset(wide, [False] * len(ids))
    below = 2.4 * (places[-1][0] + 1)
    ladders = merge_ladders(subject.tokenizer, ids)
    lines = ["The longest words, from bytes to tokens; merges are numbered in the order learned"] if ladders else []
    lines += [line for ladder in ladders for line in ("", *ladder)]
    title = f"The text as tokens, with a vocabulary of {subject.tokenizer.vocab_size}"
    figure, axes = _page(title, below + len(lines))
    for text, token, (row, column), width in zip(labels, ids, places, wide, strict=False):
        shade = LIGHT if token % 2 else "#e3eaf0"  # equal tokens have equal shades
        axes.add_patch(Rectangle((column, 2.4 * row), width - 0.3, 1.05, facecolor=shade))
        write(axes, column + (width - 0.3) / 2, 2.4 * row + 0.5, text, ha="center")
        write(axes, column + (width - 0.3) / 2, 2.4 * row + 1.5, str(token), ha="center", fontsize=7.5, color="0.35")
    for line, text in enumerate(lines):
        write(axes, 0, below + line + 0.5, text, color="0.35" if line == 0 else "black")
    save(figure, path)


def embeddings(path: Path, subject: Subject) -> None:
    """Tokens and their nearest neighbours among the embeddings, by cosine similarity."""
    ids, cosines = activations.neighbours(subject.model, subject.frequent, 6)
    near = [[label(subject.tokenizer, int(token), 9) for token in row] for row in ids]
    texts = [[f"{a} {b:.2f}" for a, b in zip(*row, strict=True)] for row in zip(near, cosines, strict=True)]
    figure = Figure(figsize=(8, ROW * len(texts) + 0.9), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _cells(axes, cosines, texts, Normalize(0, 1))
    name_ticks(axes.yaxis, [label(subject.tokenizer, token) for token in subject.frequent])
    axes.set_xticks([])
    axes.set_title("Nearest neighbours among the token embeddings, and their cosine similarity")
    save(figure, path)


def position(path: Path, learned: np.ndarray | None, rotary: np.ndarray | None) -> None:
    """Similarity of positions. learned: (T, T) cosine similarities; rotary: (D/2, T) cosines; one of them is None."""
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    curve, image = figure.subplots(1, 2)
    style: Any = {"cmap": SHADES, "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    if learned is not None:
        shown = image.imshow(learned, **style)
        image.set(xlabel="position", ylabel="position", title="Cosine similarity of positions")
        values, title, what = activations.by_distance(learned), "Learned positions", "mean similarity"
    elif rotary is not None:
        shown = image.imshow(
            rotary, aspect="auto", extent=(-0.5, rotary.shape[1] - 0.5, len(rotary) + 0.5, 0.5), **style
        )
        image.set(xlabel="distance, tokens", ylabel="pair of coordinates", title="Dot product in each pair")
        values, title, what = rotary.mean(axis=0), "Rotary positions", "dot product of a query and an equal key"
    figure.colorbar(shown, ax=image, shrink=0.8)
    curve.plot(values, color=DARK, linewidth=1.6)
    curve.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    curve.axhline(0, color="0.6", linewidth=0.8)
    curve.set(xlabel="distance, tokens", ylabel=what, title=title)
    curve.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def attention(path: Path, subject: Subject, acts: Activations, blocks: Sequence[int], heads: Sequence[int]) -> None:
    """One map per head: each row is a token's attention weights, darker is larger. At most PANELS × PANELS."""
    rows, columns = ([among[place] for place in spread(len(among), PANELS)] for among in (blocks, heads))
    labels = [label(subject.tokenizer, token) for token in acts.ids.tolist()]
    side = min(6.0, 9.0 / max(len(rows), len(columns)))  # inches
    size = min(9.0, 72 * 0.85 * side / len(labels))  # points: a label is as high as a row
    figure = Figure(figsize=(side * len(columns) + 1.5, side * len(rows) + 0.8), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for (row, block), (column, head) in itertools.product(enumerate(rows), enumerate(columns)):
        axes = panels[row, column]
        axes.imshow(acts.attention[block, head].numpy(), cmap=SHADES, norm=WEIGHT_SCALE, interpolation="nearest")
        axes.set_title(f"block {block + 1}, head {head + 1}", fontsize=9)
        for axis, edge, turned in ((axes.yaxis, column == 0, 0), (axes.xaxis, row == len(rows) - 1, 90)):
            if not edge:
                axis.set_ticks([])
            elif size >= 4:  # smaller labels are illegible; the axis shows positions instead
                name_ticks(axis, labels, size, rotation=turned)
    bar = figure.colorbar(
        ScalarMappable(WEIGHT_SCALE, SHADES), ax=panels, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1], shrink=0.5
    )
    bar.set_label("attention weight")
    save(figure, path)


def lens(path: Path, subject: Subject, acts: Activations) -> None:
    """The likeliest next token after each block, ✓ if it is the target; shaded by the target's probability."""
    seen = activations.lens(subject.model, acts)
    depths = spread(len(seen.best), DEPTHS)
    labels = [*(label(subject.tokenizer, token) for token in acts.ids.tolist()), "?"]
    longest = min(12, 60 // len(depths))
    texts = [[label(subject.tokenizer, int(token), longest) for token in row] for row in seen.best[depths].T]
    probs = np.zeros((len(texts), len(depths)))
    probs[:-1] = 2.0 ** -seen.bits[depths].T
    for row, column in np.argwhere(seen.ranks[depths].T == 1):
        texts[row][column] += " ✓"
    high = min(max(len(texts), 12), ROWS)
    figure = Figure(figsize=(9, ROW * high + 1.2), dpi=DPI, layout="constrained")
    table, curve = figure.subplots(1, 2, width_ratios=[3, 1])
    _cells(table, probs[-ROWS:], texts[-ROWS:], WEIGHT_SCALE)
    name_ticks(table.yaxis, [f"{token} → {target}" for token, target in itertools.pairwise(labels)][-ROWS:])
    name_ticks(table.xaxis, ["embedding" if depth == 0 else f"block {depth}" for depth in depths])
    table.xaxis.tick_top()
    table.set_title("Logit lens: the prediction after each block")
    curve.plot(
        seen.bits.mean(axis=1) if seen.bits.size else [],
        range(len(seen.bits)) if seen.bits.size else [],
        "o-",
        color=DARK,
    )
    curve.set(xlabel="bits", ylabel="blocks", title="Mean surprisal", xlim=(0, 1.08 * curve.get_xlim()[1]))
    curve.invert_yaxis()
    curve.yaxis.set_major_locator(MaxNLocator(integer=True))
    curve.spines[["top", "right"]].set_visible(False)
    style: Any = {"location": "bottom", "shrink": 0.6, "aspect": 40, "pad": 0.02}
    bar = figure.colorbar(ScalarMappable(WEIGHT_SCALE, SHADES), ax=table, ticks=[0, 0.05, 0.2, 0.5, 1], **style)
    bar.set_label("probability of the target token")
    save(figure, path)


def next_token(path: Path, subject: Subject, acts: Activations, settings: Sampling) -> None:
    """Left: the probability of each target token. Right: the next token's distribution, and what each filter keeps."""
    steps = activations.steps(acts.logits, settings)
    rows = min(max(20, len(acts.ids) - 1), ROWS)
    figure = Figure(figsize=(10, ROW * rows + 1.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    _targets(left, subject, acts, steps)
    _predictions(right, subject, steps, settings.temperature, rows)
    for axes in (left, right):
        axes.set_ylim(rows + 0.5, -1.7)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _targets(axes: Axes, subject: Subject, acts: Activations, steps: activations.Steps) -> None:
    """The probability, surprisal and rank of each target token, and the likeliest token."""
    bits, ranks = acts.bits[-ROWS:], activations.ranks(acts.logits, acts.ids)[-ROWS:]
    axes.barh(range(len(bits)), 2.0**-bits, color=DARK, height=0.7)
    name_ticks(axes.yaxis, [label(subject.tokenizer, token) for token in acts.ids[1:].tolist()[-ROWS:]])
    likeliest = steps.probs[:-1].argmax(-1).tolist()[-ROWS:]
    write(axes, 1.04, -1, " bits  rank  likeliest", color="0.35", fontsize=8)
    for row, (value, rank, best) in enumerate(zip(bits, ranks, likeliest, strict=True)):
        write(axes, 1.04, row, f"{value:5.1f} {rank:5}  {label(subject.tokenizer, best, 10)}", fontsize=8)
    axes.set(xlim=(0, 1.9), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="probability", title="Target tokens")


def _predictions(axes: Axes, subject: Subject, steps: activations.Steps, temperature: float, most: int) -> None:
    """The likeliest next tokens after the text, with one column per filter: ● if it keeps the token."""
    order = steps.warmed[-1].argsort(descending=True, stable=True)[:most]
    count = len(order)
    plain, warmed = steps.probs[-1, order].numpy(), steps.warmed[-1, order].numpy()
    axes.barh(range(count), plain, color=LIGHT, height=0.8)
    axes.barh(range(count), warmed, color="none", edgecolor=DARK, height=0.8)
    name_ticks(axes.yaxis, [label(subject.tokenizer, token) for token in order.tolist()])
    top = float(max(plain.max(), warmed.max()))
    for column, (name, kept) in enumerate(steps.kept.items()):
        style: Any = {"ha": "center", "fontsize": 8}
        x = top * (1.15 + 0.25 * column)
        write(axes, x, -1.1, name.replace(" ", "\n"), color="0.35", **style)
        write(axes, x, count - 0.1, f"{int(kept[-1].sum())} kept", color="0.35", **style)
        for row, token in enumerate(order.tolist()):
            write(axes, x, row, "●" if kept[-1, token] else "·", **style)
    axes.set(xlim=(0, top * (1.1 + 0.25 * len(steps.kept))), title="Next token after the text")
    axes.set_xlabel(f"probability; outlined: at temperature {temperature:g}")
    axes.set_xticks([tick for tick in MaxNLocator(5).tick_values(0, top) if tick <= top * 1.05])


def surprisal(path: Path, subject: Subject, acts: Activations) -> None:
    """A text shaded by each token's surprisal in bits; the first token, which is not predicted, is grey."""
    bits = acts.bits
    displayed = displayed_tokens(subject.tokenizer, acts.ids.tolist(), [np.nan, *bits])
    places = _typeset([len(text) for text, _ in displayed], [text.endswith("↵") for text, _ in displayed])
    below = 1.25 * (places[-1][0] + 1)
    mean = f"{bits.mean():.1f} bits per token" if bits.size else "a single token has no prediction"
    figure, axes = _page(f"Surprisal of each token: {mean}", below + 2.5)
    scale = Normalize(0, MOST_BITS)
    for (text, value), (row, column) in zip(displayed, places, strict=False):
        shade = "0.88" if np.isnan(value) else SHADES(scale(value))
        axes.add_patch(Rectangle((column, 1.25 * row), len(text) - 0.06, 1.1, facecolor=shade))
        write(axes, column, 1.25 * row + 0.55, text, color=ink(scale(value)))
    bar = axes.inset_axes((0, below + 0.6, 30, 0.7), transform=axes.transData)
    figure.colorbar(ScalarMappable(scale, SHADES), cax=bar, orientation="horizontal", extend="max")
    bar.tick_params(labelsize=8)
    write(axes, 32, below + 0.95, "bits: −log₂ of a token's probability")
    save(figure, path)


def _typeset(widths: Iterable[int], ends: Iterable[bool]) -> list[tuple[int, int]]:
    """(line, column) of each text of a page, with line breaks at the edge and after texts that end a line.

    Texts that do not fit on the page are left out.
    """
    row = column = 0
    places = []
    for width, end in zip(widths, ends, strict=True):
        if column and column + width > COLUMNS:
            row, column = row + 1, 0
        if row == LINES:
            break
        places.append((row, column))
        row, column = (row + 1, 0) if end else (row, column + width)
    return places


def _page(title: str, lines: float) -> tuple[Figure, Axes]:
    """A figure for text, in units of one character width and one line height."""
    wide, high = COLUMNS * 0.602 * 10 / 72, lines * ROW  # inches; a character is 0.602 × 10 points wide
    figure = Figure(figsize=(wide + 0.5, high + 0.5), dpi=DPI)
    axes = figure.add_axes((0.25 / (wide + 0.5), 0.1 / (high + 0.5), wide / (wide + 0.5), high / (high + 0.5)))
    axes.set(xlim=(0, COLUMNS), ylim=(lines, 0))
    axes.axis("off")
    axes.set_title(title)
    return figure, axes


def _cells(axes: Axes, values: np.ndarray, texts: list[list[str]], norm: Normalize) -> None:
    """A table of texts on shaded cells."""
    axes.imshow(values, cmap=SHADES, norm=norm, aspect="auto", interpolation="nearest")
    for row, column in np.ndindex(values.shape):
        color = ink(norm(values[row, column]))
        write(axes, column, row, texts[row][column], ha="center", fontsize=8, color=color)
    axes.spines[:].set_visible(False)
