"""Figures of lessons 6, 8, 9 and 10: training, its memory, experiments, overfitting. __main__.py draws them."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark import ablations
from tinygpt import config
from tinygpt.cli import presets
from tinygpt.data.corpus import read_rows
from tinygpt.data.dataset import Examples, TokenDataset
from tinygpt.data.train_tokenizer import build
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_table
from tinygpt.model.gpt import GPTConfig
from tinygpt.plots import style
from tinygpt.plots.curves import loss_curves
from tinygpt.plots.style import ACCENT, DARK, LIGHT, STYLES
from tinygpt.training import forecast, loop
from tinygpt.training.optimizer import schedule
from tinygpt.training.state import initial_state

PATHS = Paths()
CPU = torch.device("cpu")


def curves(path: Path) -> None:
    """The losses and gradients of the last run, and three schedules."""
    settings = config.load(PATHS.params).train
    figure, (left, middle, right) = style.canvases(3)
    figure.set_size_inches(10.5, 3.6)
    train, held = (read_table(PATHS.training / f"{split}.tsv") for split in ("train", "validation"))
    losses = np.array([row["loss"] for row in train])
    left.plot([row["step"] for row in train], losses, color=LIGHT, linewidth=0.7, label="training, each batch")
    left.plot([row["step"] for row in train], style.smoothed(losses), "--", color=DARK, label="training, smoothed")
    left.plot(*zip(*((r["step"], r["loss"]) for r in held), strict=True), "o-", color=ACCENT, label="validation")
    left.set(xlabel="step", ylabel="nats per token", title="Loss")
    left.legend(frameon=False, fontsize=9)
    norms = np.array([row["gradient_norm"] for row in train])
    middle.plot([row["step"] for row in train], norms, color=LIGHT, linewidth=0.7)
    middle.plot([row["step"] for row in train], style.smoothed(norms), "--", color=DARK)
    middle.axhline(settings.gradient_clip, color=ACCENT, linewidth=1)
    middle.set(xlabel="step", ylim=(0, None), title="Gradient norm; line: clipping")
    steps = range(settings.steps)
    for number, kind in enumerate(("linear", "cosine", "constant")):
        one = settings.model_copy(update={"schedule": kind})
        rates = [settings.learning_rate * schedule(step, one) for step in steps]
        right.plot(steps, rates, STYLES[number], color=ACCENT if kind == settings.schedule else DARK, label=kind)
    right.set(xlabel="step", title="Learning rate: three schedules", ylim=(0, None))
    right.legend(frameon=False, fontsize=9)
    style.save(figure, path)


def memory(path: Path) -> None:
    """The memory forecast by batch size."""
    figure, axes = style.canvas()
    sizes: dict[str, dict[str, Any]] = {"the default": {}, "hour": presets.load(Path("sizes.yaml"))["hour"]}
    for number, (name, size) in enumerate(sizes.items()):
        params = presets.apply(size, PATHS.params)
        shape = GPTConfig(vocab_size=params.tokenize.vocab_size, **params.model.model_dump())
        state = initial_state(shape, params.train, 1, CPU, "fp32")
        fixed, (_, sequence) = forecast.lasting_memory(state), forecast.memory_of_pass(state, "fp32")
        batches = 2 ** np.arange(11)
        axes.plot(batches, (fixed + batches * sequence) / 1e9, STYLES[number], color=DARK, marker="o", label=name)
        axes.axhline(
            fixed / 1e9, color=ACCENT, linewidth=1, linestyle=STYLES[number], label=f"{name}: without any sequence"
        )
        batch = params.train.batch_size
        axes.plot(batch, (fixed + batch * sequence) / 1e9, "o", color=ACCENT, markersize=10)
    axes.set(xlabel="batch, sequences", ylabel="GB in fp32", title="Memory of a training step (large dots: as set)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, fontsize=9)
    style.save(figure, path)


def ablation(path: Path) -> None:
    """Some tables of docs/experiments.md as a figure, from the same runs."""
    entries = [e for e in ablations.plan() if e.group in ("default", "tokenizer", "architecture", "optimizer")]
    runs = {entry.name: [run.bits_per_byte for run in entry.of(ablations.load_results())] for entry in entries}
    names = sorted(runs, key=lambda name: statistics.fmean(runs[name]))
    figure, axes = style.canvas()
    axes.grid(visible=False)
    for row, name in enumerate(names):
        mean, spread = statistics.fmean(runs[name]), statistics.stdev(runs[name])
        axes.errorbar(mean, row, xerr=spread, fmt="o", color=ACCENT if name == "default" else DARK, capsize=4)
    axes.axvline(statistics.fmean(runs["default"]), color=ACCENT, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(
        xlabel="bits per byte after 200 steps, three seeds or more (less is better)", title="What each choice is worth"
    )
    style.save(figure, path)


def overfitting(path: Path) -> None:
    """The losses of the default model on a small text: Hamlet alone."""
    params = config.load(PATHS.params)
    text = "".join(text for play, text in read_rows(PATHS.text("train")) if play == "hamlet")
    until = int(len(text) * 0.9)
    learned = build(params.tokenize.model_copy(update={"kind": "bpe", "vocab_size": 512}), [text[:until]])
    settings = params.train.model_copy(update={"steps": 500, "eval_every": 25})
    shape = GPTConfig(vocab_size=512, **params.model.model_dump())
    state = initial_state(shape, settings, params.seed, CPU, "fp32")
    parts = {"train": text[:until], "validation": text[until:]}
    data: dict[str, Examples] = {
        split: TokenDataset(learned.encode_array(part).astype(np.uint16), shape.context_length)
        for split, part in parts.items()
    }
    for _ in loop.train(state, settings, data, params.seed, "fp32"):
        pass
    loss_curves(path, state.train_rows, state.validation_rows, {})
