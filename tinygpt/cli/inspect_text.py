"""Model internals in a terminal: `for line in show(names, subject, …): print(line)`.

Without colour, shades become ░▒▓█ and surprisal becomes bars under the lines. Colour is off if the output is not a
terminal or NO_COLOR is set (no-color.org). The same views as figures: inspection/figures.py.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from rich.cells import cell_len
from rich.color import Color, ColorSystem
from rich.style import Style

from tinygpt.generation.sampling import Sampling
from tinygpt.inspection import activations
from tinygpt.inspection.activations import MOST_BITS, Activations
from tinygpt.inspection.text import Subject, displayed_tokens, label, merge_ladders

BLUES = (231, 195, 153, 117, 75, 33, 25, 18)  # ANSI 256-colour codes, white to dark
PASTELS = (223, 194, 189, 225, 230, 159)
BOLD = Style(bold=True)
DOTS, BARS = " ░▒▓█", " ▁▂▃▄▅▆▇█"
TITLES = {
    "tokens": "The text as tokens",
    "embeddings": "Nearest token embeddings by cosine similarity",
    "position": "Position encoding, and loss by context length",
    "attention": "Attention weights of each head",
    "lens": "Logit lens: the prediction after each block",
    "next": "Probability of each token, and truncation by each sampling setting",
    "surprisal": "Surprisal of each token",
}


def show(
    names: Collection[str],
    subject: Subject,
    settings: Sampling,
    blocks: Sequence[int],
    heads: Sequence[int],
    colour: bool,
    width: int = 80,
) -> Iterator[str]:
    """The lines of the views in `names` (see activations.VIEWS), for a terminal `width` columns wide.

    blocks, heads: the ones that `attention` shows, counted from 0; a single head is shown as a map.
    """
    whole = activations.get_activations(subject.model, subject.text)
    acts = whole.first(subject.short)
    for name in (name for name in activations.VIEWS if name in names):
        yield f"\n{BOLD.render(name)}  {TITLES[name]}\n" if colour else f"\n{name.upper()}  {TITLES[name]}\n"
        match name:
            case "tokens":
                yield from tokens(subject, acts, colour, width)
            case "embeddings":
                yield from embeddings(subject, colour, width)
            case "position":
                yield from position(subject)
            case "attention":
                yield from attention(subject, acts, blocks, heads, colour, width)
            case "lens":
                yield from lens(subject, acts, colour, width)
            case "next":
                yield from next_tokens(subject, acts, settings, colour)
            case "surprisal":
                yield from surprisal(subject, whole, colour, width)


def tokens(subject: Subject, acts: Activations, colour: bool, width: int) -> Iterator[str]:
    """The tokens above their ids, and the BPE merges of the longest words."""
    upper, lower, used = "", "", 0
    for token in acts.ids.tolist():
        text = label(subject.tokenizer, token)
        wide = max(cell_len(text), len(str(token)))
        if used and used + wide > width:
            yield f"{upper}\n{lower}\n"
            upper, lower, used = "", "", 0
        upper += (_on(PASTELS[token % len(PASTELS)], 16, _fit(text, wide)) if colour else _fit(text, wide)) + " "
        lower += f"{token:<{wide}} "
        used += wide + 1
    yield f"{upper}\n{lower}"
    ladders = merge_ladders(subject.tokenizer, acts.ids.tolist())
    if ladders:
        yield "\nThe longest words, from bytes to tokens; merges are numbered in the order learned:"
    for ladder in ladders:
        yield from ["", *ladder]


def embeddings(subject: Subject, colour: bool, width: int) -> Iterator[str]:
    """One line per token, followed by its nearest neighbours."""
    count = max(1, min(6, (width - 14) // 16))
    for token, *row in zip(
        subject.frequent, *activations.neighbours(subject.model, subject.frequent, count), strict=True
    ):
        near = zip(*row, strict=True)
        cells = [
            _shade(f"{_fit(label(subject.tokenizer, one, 9), 9)} {value:5.2f}", value, colour) for one, value in near
        ]
        yield f"{_fit(label(subject.tokenizer, token), 13)} " + " ".join(cells)


def position(subject: Subject) -> Iterator[str]:
    """Similarity of positions by their distance, and mean loss by context length."""
    learned, rotary = activations.position_similarity(subject.model), activations.rotary_products(subject.model)
    if learned is not None:
        curve = activations.by_distance(learned)
        yield "learned positions: mean cosine similarity by distance in tokens"
    elif rotary is not None:
        curve = rotary.mean(axis=0)
        yield "rotary positions: dot product of a query and an equal key by distance"
    for distance in [0, *(2**power for power in range(20))]:
        if distance < len(curve):
            yield f"{distance:>8}  {curve[distance]:6.3f}  {'█' * round(30 * max(0.0, float(curve[distance])))}"
    if subject.by_position is not None:
        yield "\nmean loss on held-out text, in nats, by tokens of context:"
        losses = subject.by_position
        for first, group in activations.octaves(losses):
            last = first + len(group) - 1
            name = str(first) if first == last else f"{first}–{last}"
            yield f"{name:>8}  {group.mean():6.3f}  {'█' * round(30 * group.mean() / losses.max())}"


def attention(
    subject: Subject, acts: Activations, blocks: Sequence[int], heads: Sequence[int], colour: bool, width: int
) -> Iterator[str]:
    """Statistics of each head; for a single head, its attention map as well."""
    of = activations.head_statistics(acts.attention)
    yield "            mean attention weight on                tokens     spread"
    yield "block head  itself  the one before  the first      away       over"
    for block in blocks:
        for head in heads:
            one = (block, head)
            yield (
                f"{block + 1:5} {head + 1:4}  {of.itself[one]:6.0%}  {of.previous[one]:14.0%}  {of.first[one]:9.0%}"
                f"  {of.distance[one]:8.1f}  {of.spread[one]:9.1f}"
            )
    if len(blocks) * len(heads) == 1:
        yield ""
        yield from attention_map(subject, acts.attention[blocks[0], heads[0]].numpy(), acts, colour, width)
    else:
        yield "\nfor the map of one head: tinygpt inspect --layer 1 --head 1"


def attention_map(subject: Subject, weights: np.ndarray, acts: Activations, colour: bool, width: int) -> Iterator[str]:
    """One line per token: its attention weights on the tokens up to itself as shades, and the largest ones."""
    labels = [label(subject.tokenizer, token, 10) for token in acts.ids.tolist()]
    fits = width >= 11 + len(labels) + 33  # a label, the shades, and two labels with their weights
    for row, (text, attended) in enumerate(zip(labels, weights, strict=True)):
        cells = "".join(
            _cell(float(weight) ** 0.5, colour) if column <= row else " " for column, weight in enumerate(attended)
        )
        largest = np.argsort(-attended, kind="stable")[: 2 if fits else 3]
        named = ", ".join(f"{labels[i]} {attended[i]:.0%}" for i in largest if attended[i] >= 0.01)
        yield f"{_fit(text, 10)} {cells + '  ' if fits else ''}{named}"


def lens(subject: Subject, acts: Activations, colour: bool, width: int) -> Iterator[str]:
    """One line per token: the likeliest next token at each depth, with the target's surprisal in bits."""
    seen = activations.lens(subject.model, acts)
    depths = activations.spread(len(seen.best), max(2, (width - 14) // 16))
    yield f"{'target':12}  " + " ".join(f"{'embedding' if depth == 0 else f'block {depth}':15}" for depth in depths)
    targets = [label(subject.tokenizer, token) for token in acts.ids[1:].tolist()]
    for row in range(len(acts.ids)):
        line = []
        for depth in depths:
            prediction = _fit(label(subject.tokenizer, int(seen.best[depth, row]), 9), 9)
            if row == len(targets):
                line.append(f"{prediction}      ")
                continue
            bits = float(seen.bits[depth, row])
            right = "✓" if seen.ranks[depth, row] == 1 else " "
            line.append(_shade(f"{prediction}{right}{bits:5.1f}", 2.0 ** (-bits / 2), colour))
        yield f"{_fit(targets[row] if row < len(targets) else '?', 12)}  " + " ".join(line)
    if targets:
        yield f"{'mean bits':12}  " + " ".join(f"{seen.bits[depth].mean():15.1f}" for depth in depths)


def next_tokens(subject: Subject, acts: Activations, settings: Sampling, colour: bool) -> Iterator[str]:
    """One line per target token: its probability, and how many tokens each filter keeps; ✗: it drops the target."""
    steps = activations.steps(acts.logits, settings)
    bits, ranks = acts.bits, activations.ranks(acts.logits, acts.ids)
    heads = "".join(f"{name:>11}" for name in steps.kept)
    yield f"{'target':10}{'bits':>6}{'rank':>6}{'p':>5}{f'at {settings.temperature:g}':>7}{heads}  likeliest"
    for row, token in enumerate(acts.ids[1:].tolist()):
        p, warm = float(steps.probs[row, token]), float(steps.warmed[row, token])
        kept = "".join(f"{int(k[row].sum()):9} {' ' if k[row, token] else '✗'}" for k in steps.kept.values())
        best = label(subject.tokenizer, int(steps.probs[row].argmax()), 10)
        text = _fit(label(subject.tokenizer, token, 9), 10)
        yield f"{_shade(text, p**0.5, colour)}{bits[row]:6.1f}{ranks[row]:6}{p:5.0%}{warm:7.0%}{kept}  {best}"
    best_of = steps.warmed[-1].argsort(descending=True, stable=True)[:6].tolist()
    likely = ", ".join(f"{label(subject.tokenizer, one)} {float(steps.warmed[-1, one]):.0%}" for one in best_of)
    yield f"{'?':34}" + "".join(f"{int(kept[-1].sum()):9}  " for kept in steps.kept.values())
    yield f"\nnext, at temperature {settings.temperature:g}: {likely}"


def surprisal(subject: Subject, acts: Activations, colour: bool, width: int) -> Iterator[str]:
    """The text shaded by each token's surprisal in bits; without colour, as bars under its lines."""
    bits = acts.bits
    if not bits.size:
        yield "A single token: there is no prediction."
        return
    upper, lower, used, ended = "", "", 0, False
    for text, value in displayed_tokens(subject.tokenizer, acts.ids.tolist(), [0.0, *bits]):
        wide = cell_len(text)
        if used and (used + wide > width or ended):
            yield upper if colour else f"{upper}\n{lower}"
            upper, lower, used = "", "", 0
        fraction = min(1.0, value / MOST_BITS)
        upper += _shade(text, fraction, colour)
        lower += BARS[round(fraction * (len(BARS) - 1))] * wide
        used, ended = used + wide, text.endswith("↵")
    yield upper if colour else f"{upper}\n{lower}"
    ticks = [(value, value / MOST_BITS) for value in (0, 3, 6, 9, 12)]
    scale = [_shade(f" {n} ", fraction, True) if colour else f"{BARS[int(8 * fraction)]} {n}" for n, fraction in ticks]
    yield f"\nbits: {' '.join(scale)} and more"
    yield f"{bits.mean():.2f} bits per token on average, {bits.sum():.0f} in total, over {len(bits)} tokens"
    most = [(label(subject.tokenizer, acts.ids.tolist()[place + 1]), bits[place]) for place in np.argsort(-bits)[:5]]
    yield "most: " + ", ".join(f"{text} {value:.1f}" for text, value in most)


def _shade(text: str, fraction: float, colour: bool) -> str:
    """The text on a blue background: white at 0, dark at 1."""
    place = min(int(max(0.0, fraction) * len(BLUES)), len(BLUES) - 1)
    return _on(BLUES[place], 16 if place < 5 else 231, text) if colour else text


def _on(background: int, foreground: int, text: str) -> str:
    style = Style(color=Color.from_ansi(foreground), bgcolor=Color.from_ansi(background))
    return style.render(text, color_system=ColorSystem.EIGHT_BIT)


def _cell(fraction: float, colour: bool) -> str:
    return _shade(" ", fraction, True) if colour else DOTS[min(int(fraction * len(DOTS)), len(DOTS) - 1)]


def _fit(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
