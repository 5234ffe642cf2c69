"""The figures of a report: curves redrawn as small SVGs, of one run or several, and the PNGs that a run drew."""

import base64
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygpt.experiments.artifacts import Outputs
from tinygpt.plots import curves

LONGEST = 26  # characters of a name in a figure
DRAWN = ("loss", "learning_rate", "gradient_norm", "by_compute", "baselines", "temperatures")  # redrawn, as curves
CAPTIONS = {  # of the PNGs that a run drew, in the order of the model
    "tasks": "Tasks: bars are the model's scores with 95% intervals, marks what stands beside them.",
    "tokens": "Tokenization: each box is a token, with its id below it; then the merges that made the longest words.",
    "embeddings": "Nearest neighbours of token embeddings: tokens with similar contexts end up close together.",
    "position": "How the position encoding represents distance.",
    "by_position": "Loss by position: it falls as long as more context helps.",
    "attention": "Attention weights of each head: a row for each query token; darker is larger.",
    "lens": "The most likely next token after each block; ✓ where it is the target.",
    "next": "The probability of each target token, and the tokens that each sampling filter keeps.",
    "surprisal": "Surprisal of each token of a held-out passage, in bits: darker is larger. Its mean is the loss.",
}


@dataclass(frozen=True)
class Figure:
    """An image with its caption."""

    name: str
    caption: str
    source: str = ""  # a data URI; "" if there is nothing to draw: the caption says why
    wide: bool = False


def learning_curves(runs: Sequence[Outputs], names: Sequence[str]) -> list[Figure]:
    """The loss against steps, compute and time; for a single run also learning rate and gradient norm.

    Empty if no run has curves.
    """
    pairs = zip(runs, legends(names), strict=True)
    known = {name: each for each, name in pairs if each.validation and each.evaluation}
    if not known or len(runs) > 1:
        return list(_learned(known))
    return [_loss(runs[0]), *_learned({"": runs[0]}), *_steps(runs[0])]


def _loss(outputs: Outputs) -> Figure:
    baselines = curves.nats_per_token(outputs.evaluation["baselines"], _bytes_per_token(outputs))
    return _drawn(
        "loss",
        "Single batches are noisy; the dashed line smooths them. What counts is the validation loss: if it rises while "
        "the training loss falls, the model overfits.",
        lambda path: curves.loss_curves(path, outputs.train, outputs.validation, baselines),
    )


def _learned(known: dict[str, Outputs]) -> Iterator[Figure]:
    """Bits per byte of each run, against steps, compute and seconds."""
    if not known:
        return
    baselines, size = baselines_of(list(known.values())), {name: _bytes_per_token(o) for name, o in known.items()}

    def learning(name: str, caption: str, points: dict[str, curves.Points], across: str, title: str) -> Figure:
        return _drawn(name, caption, lambda path: curves.learning(path, points, baselines, across, title))

    marks = "Each mark is a validation step, on a part of the held-out text; the number at the top is for all of it."
    if len(known) > 1:
        by_step = {n: {int(row["step"]): row["step"] for row in o.validation} for n, o in known.items()}
        steps = {n: curves.by_time(o.validation, by_step[n], size[n]) for n, o in known.items()}
        yield learning("steps", marks, steps, "step", "Loss by step")
    compute = {n: curves.by_compute(o.validation, o.run.flops / o.run.steps, size[n]) for n, o in known.items()}
    caption = f"{marks} At equal compute, lower is better, whatever the model's size."
    yield learning("compute", caption, compute, *curves.COMPUTE)
    seconds = {n: curves.by_time(o.validation, o.seconds, size[n]) for n, o in known.items()}
    lacking = [name for name, points in seconds.items() if not points]
    if len(lacking) == len(known):
        caption = "No loss against time: only the machine that trained a run records its times, and this one has none."
        yield Figure("seconds", caption)
        return
    caption = "Elapsed time on this machine, which depends on its load."
    caption += f" Not recorded here: {', '.join(lacking)}." if lacking else ""
    yield learning("seconds", caption, seconds, *curves.SECONDS)


def _steps(outputs: Outputs) -> Iterator[Figure]:
    limit = float(outputs.run.settings.get("train.gradient_clip", 0))
    yield _drawn(
        "learning-rate",
        "It warms up because early gradients are unreliable, and decays so that the last steps settle.",
        lambda path: curves.learning_rate(path, outputs.train),
    )
    yield _drawn(
        "gradient-norm",
        "Spikes are unusual batches; steps above the line are scaled down. A steady rise warns of divergence.",
        lambda path: curves.gradient_norm(path, outputs.train, limit),
    )


def legends(names: Sequence[str]) -> list[str]:
    """Names short enough for a figure: long ones lose their middle, equal ones get a number."""
    short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}…{name[-8:]}" for name in names]
    return [name if short.count(name) == 1 else f"{number} {name}" for number, name in enumerate(short, 1)]


def bars(runs: Sequence[Outputs], names: Sequence[str]) -> Figure | None:
    """Bits per byte of all runs and the baselines; None without baselines."""
    baselines = baselines_of(runs)
    ours = {
        name: (each.run.bits_per_byte, each.evaluation.get("bits_per_byte_standard_error"))
        for each, name in zip(runs, legends(names) if len(runs) > 1 else ["this model"], strict=True)
    }
    caption = "A good model is below the 5-gram and the compressors, which have seen the same text."
    return _drawn("baselines", caption, lambda path: curves.baseline_bars(path, ours, baselines)) if baselines else None


def temperatures(outputs: Outputs, name: str) -> Figure:
    """Diversity and likelihood of the samples against temperature, for each top-p."""
    metrics = outputs.sample_metrics
    return _drawn(
        f"temperatures {name}",
        "Left: diversity of the samples. Right: their surprisal under the model. The target is held-out text.",
        lambda path: curves.temperatures(path, metrics["grid"], metrics["held_out"]),
    )


def pictures(outputs: Outputs) -> list[Figure]:
    """The run's own figures of the inside of its model, in the order of CAPTIONS."""
    drawn = {name: data for name, data in outputs.pictures.items() if data and name not in DRAWN}
    names = [*(name for name in CAPTIONS if name in drawn), *sorted(drawn.keys() - CAPTIONS.keys())]
    return [Figure(name, CAPTIONS.get(name, name), _uri("png", drawn[name]), wide=True) for name in names]


def baselines_of(runs: Sequence[Outputs]) -> dict[str, float]:
    """The baselines of the text that all runs were evaluated on; empty if the texts differ or are unknown."""
    found = [each.evaluation["baselines"] for each in runs if each.evaluation]
    one_text = len({each.run.settings.get("text") for each in runs}) == 1
    return found[0] if found and one_text and all(baselines == found[0] for baselines in found) else {}


def _drawn(name: str, caption: str, draw: Callable[[Path], None]) -> Figure:
    """A figure drawn for the report."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chart.svg"
        draw(path)
        return Figure(name, caption, _uri("svg+xml", path.read_bytes()))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _bytes_per_token(outputs: Outputs) -> float:
    size: float = outputs.evaluation["bytes"] / outputs.evaluation["tokens"]
    return size
