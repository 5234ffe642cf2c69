"""Figures of lessons 1 to 3: the pipeline, the vocabulary, windows, positions. __main__.py draws them."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import FancyBboxPatch

from tinygpt import config
from tinygpt.data.corpus import read_rows
from tinygpt.data.dataset import StepSampler, TokenDataset, open_tokens
from tinygpt.data.train_tokenizer import build
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json
from tinygpt.plots import style
from tinygpt.plots.style import ACCENT, DARK, STYLES
from tinygpt.scratch.embedding import rotary_angles

PATHS = Paths()
STAGES = ("download", "tokenize", "train", "evaluate", "sample")


def pipeline(path: Path) -> None:
    """Five stages as boxes, each with its output."""
    params, text = config.load(PATHS.params), read_json(PATHS.baselines)
    metrics = read_json(PATHS.evaluation / "metrics.json")
    ids = len(open_tokens(PATHS.ids("train"))) + len(open_tokens(PATHS.ids("validation")))
    figure, axes = style.canvas()
    axes.set_axis_off()
    figure.set_size_inches(8, 2.7)
    outputs = [
        f"{(text['train_bytes'] + text['validation_bytes']) / 1e6:.1f} MB\nof text",
        f"{ids / 1e6:.1f} million\ntokens, vocabulary {params.tokenize.vocab_size}",
        f"{read_json(PATHS.training / 'metrics.json')['parameters'] / 1e6:.2f} million\nparameters",
        f"{metrics['bits_per_byte']:.2f} bits\nper byte",
        "new text",
    ]
    for number, (name, output) in enumerate(zip(STAGES, outputs, strict=True)):
        x, y = (2 * number, 0.0) if number < 3 else (6.0, 1.1 if number == 3 else -1.1)
        axes.add_patch(FancyBboxPatch((x, y - 0.3), 1.3, 0.6, boxstyle="round,pad=0.08", fc="white", ec=DARK, lw=1.6))
        axes.text(x + 0.65, y, name, ha="center", va="center", color=DARK, fontweight="bold")
        axes.text(x + 0.65, y - 0.5, output, ha="center", va="top", fontsize=9, color="0.25")
    for start, end in (
        ((1.4, 0), (1.9, 0)),
        ((3.4, 0), (3.9, 0)),
        ((5.4, 0.1), (5.9, 1.0)),
        ((5.4, -0.1), (5.9, -1.0)),
    ):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": ACCENT, "lw": 1.6})
    axes.set(xlim=(-0.2, 7.6), ylim=(-2.1, 1.6))
    style.save(figure, path)


def vocabulary(path: Path) -> None:
    """Bytes per token of the held-out plays over the vocabulary's size."""
    section = config.load(PATHS.params).tokenize
    text = "".join(text for _, text in read_rows(PATHS.text("validation")))
    found = []
    for size in (258, 300, 400, 512, 768, 1024, 1500, 2000, 3000, 4000, 6000, 8000):
        rows = (text for _, text in read_rows(PATHS.text("train")))
        learned = build(section.model_copy(update={"kind": "bpe", "vocab_size": size}), rows)
        found.append((size, len(text.encode()) / len(learned.encode_array(text))))
    figure, axes = style.canvas()
    axes.plot(*zip(*found, strict=True), color=DARK, marker="o", linewidth=1.8)
    characters = len({character for _, row in read_rows(PATHS.text("train")) for character in row})
    axes.plot(characters, len(text.encode()) / len(text), "s", color=DARK)
    axes.annotate(f"one token per character: {characters}", (characters * 0.85, 1.06), color=DARK)
    default = dict(found).get(section.vocab_size)
    if default:
        axes.plot(section.vocab_size, default, "o", color=ACCENT, markersize=10)
        axes.annotate(f"the default: {default:.2f}", (section.vocab_size, default - 0.12), color=ACCENT, va="top")
    axes.set(xlabel="vocabulary size", ylabel="bytes per token", ylim=(0.9, None))
    axes.set(title="Compression by vocabulary size (held-out plays)", xscale="log")
    axes.set_xticks([2**power for power in range(6, 14)], [str(2**power) for power in range(6, 14)])
    axes.minorticks_off()
    style.save(figure, path)


def windows(path: Path) -> None:
    """The windows of a short text in the first steps."""
    context, batch, length = 6, 3, 81  # twelve windows, so that eight steps are two epochs
    dataset = TokenDataset(np.arange(length, dtype=np.uint16), context)
    sampler = StepSampler(dataset, batch, seed=1, start=0, stop=8)
    figure, axes = style.canvas()
    figure.set_size_inches(8, 3)
    for step in range(8):
        for number, start in enumerate(sampler.batch(step)):
            second = step * batch + number >= dataset.windows
            axes.barh(
                step, context, left=start, height=0.7, color=ACCENT if second else DARK, edgecolor="w", linewidth=2
            )
    axes.set_yticks(range(8), [f"step {step}" for step in range(8)])
    axes.invert_yaxis()
    axes.set(xlim=(0, length), xlabel="position in the text, tokens")
    axes.set_title(f"Batches of {batch} windows of {context} tokens; the second epoch in red")
    style.save(figure, path)


def positions(path: Path) -> None:
    """Cosine of the rotation angle of four coordinate pairs of a head, by position."""
    model = config.load(PATHS.params).model
    width = model.head_dim or model.n_embd // model.n_head
    frequencies = rotary_angles(2, width, model.rope_theta)[1]  # (D/2,) radians per token
    position = torch.linspace(0, 64, 641)
    figure, axes = style.canvas()
    for number, pair in enumerate((0, width // 8, width // 4, width // 2 - 1)):
        color = [ACCENT, DARK, DARK, DARK][number]
        cosine = (position * frequencies[pair]).cos()
        axes.plot(position, cosine, STYLES[number], color=color, linewidth=1.6, label=f"arrow {pair}")
    axes.set(xlabel="position in the context, tokens", ylabel="cosine of the angle")
    axes.set_title("Rotary positions: quick arrows tell neighbours apart, slow ones near from far")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    style.save(figure, path)
