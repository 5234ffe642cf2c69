"""The lessons' pictures, one function each: `python -m docs.lessons.pictures` draws all, `… 04` those of lesson 4.

They are drawn from what the pipeline made (`make` first), in the look of tinygpt/figures.py.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.patches import FancyBboxPatch

import tinygpt
from tinygpt import config, figures, forecast, sizes, training
from tinygpt.corpus import read_rows
from tinygpt.curves import loss_curves
from tinygpt.figures import ACCENT, DARK, LIGHT, STYLES
from tinygpt.files import Paths, read_json
from tinygpt.inspecting import attention_scores
from tinygpt.model import GPT, GPTConfig, count_parameters
from tinygpt.optimizer import schedule
from tinygpt.sampling import keep_top_p
from tinygpt.scratch.attention import without_future
from tinygpt.scratch.embedding import rotary_angles
from tinygpt.state import initial_state
from tinygpt.tokenizer import build
from tinygpt.tokens import StepSampler, TokenDataset, open_tokens

HERE, PATHS = Path(__file__).parent, Paths()
CPU = torch.device("cpu")
STAGES = ("download", "tokenize", "train", "evaluate", "sample")


def pipeline(path: Path) -> None:
    """Five stages as boxes, with what each hands on."""
    params, text = config.load(PATHS.params), read_json(PATHS.yardsticks)
    metrics = read_json(PATHS.evaluation / "metrics.json")
    ids = len(open_tokens(PATHS.ids("train"))) + len(open_tokens(PATHS.ids("validation")))
    figure, axes = figures.canvas()
    axes.set_axis_off()
    figure.set_size_inches(8, 2.7)
    handed = [
        f"{(text['train_bytes'] + text['validation_bytes']) / 1e6:.1f} MB\nof text",
        f"{ids / 1e6:.1f} million\ntokens of {params.tokenize.vocab_size} kinds",
        f"{read_json(PATHS.training / 'metrics.json')['parameters'] / 1e6:.2f} million\nlearned numbers",
        f"{metrics['bits_per_byte']:.2f} bits\nper byte",
        "new text",
    ]
    for place, (name, made) in enumerate(zip(STAGES, handed, strict=True)):
        x, y = (2 * place, 0.0) if place < 3 else (6.0, 1.1 if place == 3 else -1.1)
        axes.add_patch(FancyBboxPatch((x, y - 0.3), 1.3, 0.6, boxstyle="round,pad=0.08", fc="white", ec=DARK, lw=1.6))
        axes.text(x + 0.65, y, name, ha="center", va="center", color=DARK, fontweight="bold")
        axes.text(x + 0.65, y - 0.5, made, ha="center", va="top", fontsize=9, color="0.25")
    for start, end in (
        ((1.4, 0), (1.9, 0)),
        ((3.4, 0), (3.9, 0)),
        ((5.4, 0.1), (5.9, 1.0)),
        ((5.4, -0.1), (5.9, -1.0)),
    ):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": ACCENT, "lw": 1.6})
    axes.set(xlim=(-0.2, 7.6), ylim=(-2.1, 1.6))
    figures.save(figure, path)


def vocabulary(path: Path) -> None:
    """Bytes per token of the held-out plays over the vocabulary's size."""
    section = config.load(PATHS.params).tokenize
    text = "".join(text for _, text in read_rows(PATHS.text("validation")))
    found = []
    for size in (258, 300, 400, 512, 768, 1024, 1500, 2000, 3000, 4000, 6000, 8000):
        rows = (text for _, text in read_rows(PATHS.text("train")))
        learned = build(section.model_copy(update={"kind": "bpe", "vocab_size": size}), rows)
        found.append((size, len(text.encode()) / len(learned.encode_array(text))))
    figure, axes = figures.canvas()
    axes.plot(*zip(*found, strict=True), color=DARK, marker="o", linewidth=1.8)
    characters = set(text)
    axes.plot(len(characters), len(text.encode()) / len(text), "s", color=DARK)
    axes.annotate("one token a character", (len(characters), 1.06), color=DARK)
    ours = dict(found).get(section.vocab_size)
    if ours:
        axes.plot(section.vocab_size, ours, "o", color=ACCENT, markersize=10)
        axes.annotate(f"the default: {ours:.2f}", (section.vocab_size, ours - 0.12), color=ACCENT, va="top")
    axes.set(xlabel="entries in the vocabulary", ylabel="bytes per token", ylim=(0.9, None))
    axes.set(title="What a larger vocabulary buys (held-out plays)", xscale="log")
    axes.set_xticks([2**power for power in range(6, 14)], [str(2**power) for power in range(6, 14)])
    axes.minorticks_off()
    figures.save(figure, path)


def windows(path: Path) -> None:
    """Which windows of a short text the first steps take."""
    context, batch, length = 6, 3, 75
    dataset = TokenDataset(np.arange(length, dtype=np.uint16), context)
    sampler = StepSampler(dataset, batch, seed=1, start=0, stop=8)
    figure, axes = figures.canvas()
    figure.set_size_inches(8, 3)
    for step in range(8):
        for number, start in enumerate(sampler.batch(step)):
            again = step * batch + number >= sampler.windows
            axes.barh(
                step, context, left=start, height=0.7, color=ACCENT if again else DARK, edgecolor="w", linewidth=2
            )
    axes.set_yticks(range(8), [f"step {step}" for step in range(8)])
    axes.invert_yaxis()
    axes.set(xlim=(0, length), xlabel="place in the text, tokens")
    axes.set_title(f"Batches of {batch} windows of {context} tokens; the second reading in red")
    figures.save(figure, path)


def positions(path: Path) -> None:
    """How four of a head's arrows turn."""
    model = config.load(PATHS.params).model
    width = model.head_dim or model.n_embd // model.n_head
    speeds = rotary_angles(2, width, model.rope_theta)[1]  # (D/2,) radians a token
    place = torch.linspace(0, 64, 641)
    figure, axes = figures.canvas()
    for number, arrow in enumerate((0, width // 8, width // 4, width // 2 - 1)):
        color = [ACCENT, DARK, DARK, DARK][number]
        axes.plot(
            place, (place * speeds[arrow]).cos(), STYLES[number], color=color, linewidth=1.6, label=f"arrow {arrow}"
        )
    axes.set(xlabel="position in the context, tokens", ylabel="cosine of the angle")
    axes.set_title("Rotary positions: quick arrows tell neighbours apart, slow ones near from far")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figures.save(figure, path)


@torch.no_grad()
def attention(path: Path) -> None:
    """Shares on one sentence, rung by rung, in the trained model's first block."""
    model, tokenizer = tinygpt.load(PATHS.model)
    ids = tokenizer.encode("To be, or not to be")
    block: Any = model.blocks[0]
    x = block.norm1(model.embed(torch.tensor([ids])))  # (1, T, C)
    scores = attention_scores(block.attention, x, model.rotary)[0]  # (H, T, T)
    alike = x[0] @ x[0].T / x.shape[-1] ** 0.5
    panels = {
        "1 · without weights": alike.softmax(-1),
        "2 · query and key": scores[0].softmax(-1),
        "3 · no future": without_future(scores[0]).softmax(-1),
        "4 · a second head": without_future(scores[1]).softmax(-1),
    }
    figure, canvases = figures.canvases(len(panels))
    figure.set_size_inches(11, 3.3)
    words = [tokenizer.decode([token]).strip() for token in ids]
    for axes, (name, shares) in zip(canvases, panels.items(), strict=True):
        axes.grid(visible=False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(ids)), words, rotation=60)
        axes.set_yticks(range(len(ids)), words)
        axes.set_title(name, fontsize=11)
    canvases[0].set_ylabel("the token that looks")
    figures.save(figure, path)


def parameters(path: Path) -> None:
    """Where the parameters of the named sizes are."""
    named = {"default": {}} | sizes.load(Path("sizes.yaml"))
    named.pop("minute")
    figure, axes = figures.canvas()
    axes.grid(visible=False)
    parts = {  # name → what the parameters' names hold, the colour, and that of its words
        "token embedding": ("token_embedding", DARK, "w"),
        "attention": (".attention.", ACCENT, "w"),
        "MLP": (".mlp.", LIGHT, "k"),
        "head": ("head.", "0.75", "k"),
    }
    for row, size in enumerate(named.values()):
        params = sizes.apply(size, PATHS.params)
        model = GPT(GPTConfig(vocab_size=params.tokenize.vocab_size, **params.model.model_dump()))
        total, left = count_parameters(model), 0.0
        for part, (key, color, words) in parts.items():
            share = sum(p.numel() for found, p in model.named_parameters() if key in found) / total
            axes.barh(row, share, left=left, color=color, label=part if row == 0 else None, height=0.6)
            if share > 0.05:
                axes.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", color=words)
            left += share
        axes.text(1.01, row, f"{total / 1e6:.1f}M", va="center")
    axes.set_yticks(range(len(named)), list(named))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.spines[["bottom"]].set_visible(False)
    axes.set(title="Where the learned numbers are", xlim=(0, 1.08))
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figures.save(figure, path)


@torch.no_grad()
def norms(path: Path) -> None:
    """How large the vectors of the stream are, and what the norms make of them."""
    model, tokenizer = tinygpt.load(PATHS.model)
    text = next(text for _, text in read_rows(PATHS.text("validation")))
    x = model.embed(torch.tensor([tokenizer.encode(text)[: model.config.context_length]]))
    stream, handed, names = [], [], []
    for number, block in enumerate(model.blocks):
        part: Any = block
        for name, norm, layer in (("attention", part.norm1, part.attention), ("MLP", part.norm2, part.mlp)):
            read = norm(x)
            stream.append(x)
            handed.append(read)
            names.append(f"{name} {number}")
            x = x + (layer(read, model.rotary) if name == "attention" else layer(read))
    stream.append(x)
    handed.append(model.norm(x))
    names.append("head")
    figure, axes = figures.canvas()
    for values, color, label in ((stream, DARK, "the stream"), (handed, ACCENT, "what the norm hands on")):
        sizes_ = [float(value.square().mean().sqrt()) for value in values]
        axes.plot(names, sizes_, "o-", color=color, label=label)
    axes.set(ylabel="root mean square", title="Vectors before and after the norm of each part", ylim=(0, None))
    axes.legend(frameon=False)
    figures.save(figure, path)


def curves(path: Path) -> None:
    """The losses and gradients of the last run, and three schedules."""
    settings = config.load(PATHS.params).train
    figure, (left, middle, right) = figures.canvases(3)
    figure.set_size_inches(10.5, 3.6)
    train, held = (training.read_curve(PATHS.training / f"{split}.tsv") for split in ("train", "validation"))
    losses = np.array([row["loss"] for row in train])
    left.plot([row["step"] for row in train], losses, color=LIGHT, linewidth=0.7, label="training, each batch")
    left.plot([row["step"] for row in train], figures.smoothed(losses), "--", color=DARK, label="training, smoothed")
    left.plot(*zip(*((r["step"], r["loss"]) for r in held), strict=True), "o-", color=ACCENT, label="validation")
    left.set(xlabel="step", ylabel="nats per token", title="Loss")
    left.legend(frameon=False, fontsize=9)
    norms = np.array([row["gradient_norm"] for row in train])
    middle.plot([row["step"] for row in train], norms, color=LIGHT, linewidth=0.7)
    middle.plot([row["step"] for row in train], figures.smoothed(norms), "--", color=DARK)
    middle.axhline(settings.gradient_clip, color=ACCENT, linewidth=1)
    middle.set(xlabel="step", ylim=(0, None), title="Gradient norm; line: clipping")
    steps = range(settings.steps)
    for number, kind in enumerate(("linear", "cosine", "constant")):
        one = settings.model_copy(update={"schedule": kind})
        rates = [settings.learning_rate * schedule(step, one) for step in steps]
        right.plot(steps, rates, STYLES[number], color=ACCENT if kind == settings.schedule else DARK, label=kind)
    right.set(xlabel="step", title="Learning rate: three schedules", ylim=(0, None))
    right.legend(frameon=False, fontsize=9)
    figures.save(figure, path)


@torch.no_grad()
def temperatures(path: Path) -> None:
    """The next token's probabilities at three temperatures, and how many of them top-p keeps."""
    model, tokenizer = tinygpt.load(PATHS.model)
    logits = model(torch.tensor([tokenizer.encode("ROMEO:\nO, my")]))[0, -1]
    best = logits.topk(7).indices
    figure, (left, right) = figures.canvases(2)
    figure.set_size_inches(10, 4)
    for number, (temperature, color) in enumerate(((0.5, DARK), (1.0, ACCENT), (1.5, LIGHT))):
        probs = (logits / temperature).softmax(-1)
        label = f"temperature {temperature:g}"
        left.barh(np.arange(7) + 0.27 * (number - 1), probs[best], color=color, height=0.25, label=label)
        held = probs.sort(descending=True).values.cumsum(0)
        right.plot(np.arange(1, len(held) + 1), held, color=color, linewidth=2)
        kept = int((keep_top_p(probs[None], 0.9) > 0).sum())
        right.plot(kept, held[kept - 1], "o", color=color, markersize=8)
        right.annotate(f"{kept}", (kept, float(held[kept - 1])), (4, -16), textcoords="offset points")
    left.set_yticks(range(7), [tokenizer.decode([int(token)]).strip() for token in best])
    left.invert_yaxis()
    left.set(title="O, my …", xlabel="probability")
    left.legend(frameon=False, fontsize=9)
    right.axhline(0.9, color="0.5", linewidth=0.8, linestyle=":")
    right.set(
        title="Tokens that top-p 0.9 keeps", xlabel="so many of the likeliest …", ylabel="… hold this probability"
    )
    right.set(xscale="log", ylim=(0, 1.02))
    right.xaxis.set_major_formatter("{x:.0f}")
    figures.save(figure, path)


def memory(path: Path) -> None:
    """The forecast of memory over the batch size."""
    figure, axes = figures.canvas()
    for number, (name, size) in enumerate(
        ({"the default": {}} | {"hour": sizes.load(Path("sizes.yaml"))["hour"]}).items()
    ):
        params = sizes.apply(size, PATHS.params)
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
    figures.save(figure, path)


def ablation(path: Path) -> None:
    """The table of docs/speed.md under "What each choice is worth"."""
    text = Path("docs/speed.md").read_text(encoding="utf-8").partition("## What each choice is worth")[2]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) ± ([\d.]+) \|$", text.partition("\n## ")[0], flags=re.M)
    figure, axes = figures.canvas()
    axes.grid(visible=False)
    for row, (name, mean, spread) in enumerate(rows):
        color = ACCENT if name == "nothing" else DARK
        axes.errorbar(float(mean), row, xerr=float(spread), fmt="o", color=color, capsize=4)
    axes.axvline(float(rows[0][1]), color=ACCENT, linewidth=0.8, linestyle=":")
    names = [
        name.replace("`", "").replace(" in tinygpt/optimizer.py", "").replace("train.optimizer=adamw train.", "adamw, ")
        for name, *_ in rows
    ]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set(xlabel="bits per byte after 300 steps, three seeds (less is better)", title="What each choice is worth")
    figures.save(figure, path)


def overfitting(path: Path) -> None:
    """The losses of the default model on a small text: the pages in docs/."""
    params = config.load(PATHS.params)
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(Path("docs").rglob("*.md")))
    until = int(len(text) * 0.9)
    learned = build(params.tokenize.model_copy(update={"kind": "bpe", "vocab_size": 512}), [text[:until]])
    data = {"train": learned.encode_array(text[:until]), "validation": learned.encode_array(text[until:])}
    settings = params.train.model_copy(update={"steps": 300, "eval_every": 20})
    shape = GPTConfig(vocab_size=512, **params.model.model_dump())
    state = initial_state(shape, settings, params.seed, CPU, "fp32")
    for _ in training.train(state, settings, data, params.seed, "fp32"):
        pass
    loss_curves(path, state.train_rows, state.validation_rows, {})


PICTURES = {
    "01_pipeline": pipeline,
    "02_vocabulary": vocabulary,
    "03_positions": positions,
    "03_windows": windows,
    "04_attention": attention,
    "05_norms": norms,
    "05_parameters": parameters,
    "06_curves": curves,
    "07_sampling": temperatures,
    "08_memory": memory,
    "09_ablation": ablation,
    "10_overfitting": overfitting,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        if not sys.argv[1:] or name.startswith(tuple(sys.argv[1:])):
            draw(HERE / f"{name}.png")
            print(HERE.joinpath(f"{name}.png").relative_to(Path.cwd()))
