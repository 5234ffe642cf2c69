"""Figures of lessons 4, 5 and 7: internals of the trained model. __main__.py draws them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import tinygpt
from tinygpt.cli import presets
from tinygpt.data.corpus import read_rows
from tinygpt.files.paths import Paths
from tinygpt.generation.sampling import keep_top_p
from tinygpt.inspection.activations import attention_scores
from tinygpt.model.gpt import GPT, GPTConfig, count_parameters
from tinygpt.plots import style
from tinygpt.plots.style import ACCENT, DARK, LIGHT
from tinygpt.scratch.attention import causal_mask

PATHS = Paths()


@torch.no_grad()
def attention(path: Path) -> None:
    """Attention weights on one sentence, step by step, in the trained model's first block."""
    model, tokenizer = tinygpt.load(PATHS.model)
    ids = tokenizer.encode("To be, or not to be")
    block: Any = model.blocks[0]
    x = block.norm1(model.embed(torch.tensor([ids])))  # (1, T, C)
    scores = attention_scores(block.attention, x, model.rotary)[0]  # (H, T, T)
    similarity = x[0] @ x[0].T / x.shape[-1] ** 0.5
    panels = {
        "1 · no learned weights": similarity.softmax(-1),
        "2 · query and key": scores[0].softmax(-1),
        "3 · causal mask": causal_mask(scores[0]).softmax(-1),
        "4 · a second head": causal_mask(scores[1]).softmax(-1),
    }
    figure, canvases = style.canvases(len(panels))
    figure.set_size_inches(11, 3.3)
    words = [tokenizer.decode([token]).strip() for token in ids]
    for axes, (name, weights) in zip(canvases, panels.items(), strict=True):
        axes.grid(visible=False)
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(ids)), words, rotation=60)
        axes.set_yticks(range(len(ids)), words)
        axes.set_title(name, fontsize=11)
    canvases[0].set_ylabel("query token")
    style.save(figure, path)


def parameters(path: Path) -> None:
    """Where the parameters of the named sizes are."""
    named: dict[str, dict[str, Any]] = {"default": {}} | presets.load(Path("sizes.yaml"))
    named.pop("minute")
    figure, axes = style.canvas()
    axes.grid(visible=False)
    parts = {  # label → a part of the parameters' names, the colour, and the label's colour
        "token embedding": ("token_embedding", DARK, "w"),
        "attention": (".attention.", ACCENT, "w"),
        "MLP": (".mlp.", LIGHT, "k"),
        "head": ("head.", "0.75", "k"),
    }
    for row, size in enumerate(named.values()):
        params = presets.apply(size, PATHS.params)
        model = GPT(GPTConfig(vocab_size=params.tokenize.vocab_size, **params.model.model_dump()))
        total, left = count_parameters(model), 0.0
        for part, (key, color, text_color) in parts.items():
            fraction = sum(p.numel() for name, p in model.named_parameters() if key in name) / total
            axes.barh(row, fraction, left=left, color=color, label=part if row == 0 else None, height=0.6)
            if fraction > 0.05:
                axes.text(left + fraction / 2, row, f"{fraction:.0%}", ha="center", va="center", color=text_color)
            left += fraction
        axes.text(1.01, row, f"{total / 1e6:.1f}M", va="center")
    axes.set_yticks(range(len(named)), list(named))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.spines[["bottom"]].set_visible(False)
    axes.set(title="Where the parameters are", xlim=(0, 1.08))
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    style.save(figure, path)


@torch.no_grad()
def norms(path: Path) -> None:
    """Root mean square of the residual stream before and after each norm."""
    model, tokenizer = tinygpt.load(PATHS.model)
    text = next(text for _, text in read_rows(PATHS.text("validation")))
    x = model.embed(torch.tensor([tokenizer.encode(text)[: model.config.context_length]]))
    stream, normed, names = [], [], []
    for number, block in enumerate(model.blocks, start=1):
        part: Any = block
        for name, norm, layer in (("attention", part.norm1, part.attention), ("MLP", part.norm2, part.mlp)):
            y = norm(x)
            stream.append(x)
            normed.append(y)
            names.append(f"{name} {number}")
            x = x + (layer(y, model.rotary) if name == "attention" else layer(y))
    stream.append(x)
    normed.append(model.norm(x))
    names.append("head")
    figure, axes = style.canvas()
    for values, color, label in ((stream, DARK, "residual stream"), (normed, ACCENT, "after the norm")):
        rms = [float(value.square().mean().sqrt()) for value in values]
        axes.plot(names, rms, "o-", color=color, label=label)
    axes.set(ylabel="root mean square", title="Residual stream before and after each norm", ylim=(0, None))
    axes.legend(frameon=False)
    style.save(figure, path)


@torch.no_grad()
def temperatures(path: Path) -> None:
    """The next token's distribution at three temperatures, and the number of tokens that top-p keeps."""
    model, tokenizer = tinygpt.load(PATHS.model)
    logits = model(torch.tensor([tokenizer.encode("ROMEO:\nO, my")]))[0, -1]
    best = logits.topk(7).indices
    figure, (left, right) = style.canvases(2)
    figure.set_size_inches(10, 4)
    for number, (temperature, color) in enumerate(((0.5, DARK), (1.0, ACCENT), (1.5, LIGHT))):
        probs = (logits / temperature).softmax(-1)
        label = f"temperature {temperature:g}"
        left.barh(np.arange(7) + 0.27 * (number - 1), probs[best], color=color, height=0.25, label=label)
        cumulative = probs.sort(descending=True).values.cumsum(0)
        right.plot(np.arange(1, len(cumulative) + 1), cumulative, color=color, linewidth=2)
        kept = int((keep_top_p(probs[None], 0.9) > 0).sum())
        right.plot(kept, cumulative[kept - 1], "o", color=color, markersize=8)
        right.annotate(f"{kept}", (kept, float(cumulative[kept - 1])), (4, -16), textcoords="offset points")
    left.set_yticks(range(7), [tokenizer.decode([int(token)]).strip() for token in best])
    left.invert_yaxis()
    left.set(title="O, my …", xlabel="probability")
    left.legend(frameon=False, fontsize=9)
    right.axhline(0.9, color="0.5", linewidth=0.8, linestyle=":")
    right.set(title="Tokens that top-p 0.9 keeps", xlabel="number of likeliest tokens", ylabel="cumulative probability")
    right.set(xscale="log", ylim=(0, 1.02))
    right.xaxis.set_major_formatter("{x:.0f}")
    style.save(figure, path)
