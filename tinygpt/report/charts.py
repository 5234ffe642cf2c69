"""The pictures of a report (build.py), each an HTML figure with the picture inside it: curves drawn anew, as small
SVGs, for one run or several; and what a run drew of its inside, as it is.
"""

import base64
import html
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tinygpt.experiments.artifacts import Outputs
from tinygpt.plots import curves

METRICS = [  # label, key in the run's numbers, form
    ("bits per byte", "bits_per_byte", ".3f"),
    ("loss, nats per token", "loss", ".4f"),
    ("perplexity", "perplexity", ".1f"),
    ("parameters", "parameters", ","),
    ("tokens trained on", "tokens", ","),
    ("arithmetic of training, TFLOP", "tflop", ".3g"),
    ("steps", "steps", ","),
    ("best validation loss, nats per token", "best_validation_loss", ".4f"),
    ("at step", "best_step", ","),
]
LONGEST = 26  # characters of a name in a picture
DRAWN = ("loss", "learning_rate", "gradient_norm", "by_compute", "baselines", "temperatures")  # anew, as curves
CAPTIONS = {  # of what a run drew, in the order of the model
    "tokens": "How a text is cut: each box is a token, its id below; then how byte pairs merged into long words.",
    "embeddings": "Tokens of a row point nearly the same way: what could stand in one place has come to lie together.",
    "position": "What its positions let the model know of distance.",
    "by_position": "Loss by position: it falls as long as more context helps.",
    "attention": "Attention weights of each head: a row for each query token; darker columns weigh more.",
    "lens": "The most likely next token after each block; ✓ where it is the target.",
    "next": "The probability of each target token, and what each filter of a sampler would keep.",
    "surprisal": "A passage it never saw: the darker a token, the more bits it told the model. Their mean is the loss.",
}


def curves_of(runs: Sequence[Outputs], names: Sequence[str]) -> Iterator[str]:
    """Loss, bits per byte against steps, arithmetic and seconds, learning rate and gradient norm, where known."""
    pairs = zip(runs, legends(names), strict=True)
    known = {name: each for each, name in pairs if each.validation and each.evaluation}
    if not known:
        return
    yield '<div class="charts">'
    if len(runs) > 1:
        yield from _learned(known)
    else:
        yield _loss(runs[0])
        yield from _learned({"": runs[0]})
        yield from _steps(runs[0])
    yield "</div>"


def _loss(each: Outputs) -> str:
    marks = curves.nats_per_token(each.evaluation["baselines"], _bytes_per_token(each))
    return chart(
        "loss",
        "Each batch's loss is noise around the smoothed line; what counts is the loss on held-out text. Where the two "
        "part, the model learns by heart.",
        lambda path: curves.loss_curves(path, each.train, each.validation, marks),
    )


def _learned(known: dict[str, Outputs]) -> Iterator[str]:
    """Bits per byte of each run, against all that it can be measured by."""
    marks, size = marks_of(list(known.values())), {name: _bytes_per_token(each) for name, each in known.items()}
    each_mark = (
        "Each mark is a validation step, on a part of the held-out text; the number at the top of the report is on all "
        "of it. "
    )
    if len(known) > 1:
        by_step = {n: {int(row["step"]): row["step"] for row in e.validation} for n, e in known.items()}
        steps = {n: curves.by_time(e.validation, by_step[n], size[n]) for n, e in known.items()}
        yield _learning("steps", each_mark, steps, marks, "step", "Loss by step")
    compute = {n: curves.by_compute(e.validation, e.run.flops / e.run.steps, size[n]) for n, e in known.items()}
    why = each_mark + "At equal compute, lower is better, whatever the size of the model."
    yield _learning("compute", why, compute, marks, *curves.COMPUTE)
    seconds = {n: curves.by_time(e.validation, e.seconds, size[n]) for n, e in known.items()}
    lacking = [name for name, points in seconds.items() if not points]
    if len(lacking) == len(known):
        text = "No loss against seconds: only the machine that trained a run keeps its times, and this one has none."
        yield f'<p class="soft">{text}</p>'
        return
    told = "As they passed on this machine, with whatever else it was doing."
    told += f" Of {', '.join(lacking)} none are kept here." if lacking else ""
    yield _learning("seconds", told, seconds, marks, *curves.SECONDS)


def _steps(each: Outputs) -> Iterator[str]:
    limit = float(each.run.settings.get("train.gradient_clip", 0))
    yield chart(
        "learning-rate",
        "It rises first, since early gradients point anywhere, and falls so that the last steps settle.",
        lambda path: curves.learning_rate(path, each.train),
    )
    yield chart(
        "gradient-norm",
        "Spikes are batches that would have thrown the weights far; steps above the line are cut to it. A level "
        "that keeps rising warns of divergence.",
        lambda path: curves.gradient_norm(path, each.train, limit),
    )


def legends(names: Sequence[str]) -> list[str]:
    """The names as pictures have room for them: the middle left out of long ones, numbered where two are alike."""
    short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}…{name[-8:]}" for name in names]
    return [name if short.count(name) == 1 else f"{number} {name}" for number, name in enumerate(short, 1)]


def bars(runs: Sequence[Outputs], names: Sequence[str]) -> str:
    """All runs beside the baselines, shorter is better."""
    marks = marks_of(runs)
    ours = {
        name: (each.run.bits_per_byte, each.evaluation.get("bits_per_byte_standard_error"))
        for each, name in zip(runs, legends(names) if len(runs) > 1 else ["this model"], strict=True)
    }
    told = "A model is good once it is below the 5-gram and the compressors, which have seen the same text."
    return chart("baselines", told, lambda path: curves.baseline_bars(path, ours, marks)) if marks else ""


def temperatures(each: Outputs, name: str) -> str:
    """What temperature and top-p do to diversity and likelihood."""
    told = "Left, how varied the samples are; right, how much they surprise the model. Real text is where to aim."
    return chart(
        f"temperatures {name}",
        told,
        lambda path: curves.temperatures(path, each.sample_metrics["grid"], each.sample_metrics["held_out"]),
    )


def pictures(each: Outputs) -> Iterator[str]:
    """What a run drew of the inside of its model."""
    drawn = {name: data for name, data in each.pictures.items() if data and name not in DRAWN}
    yield '<div class="charts">'
    for name in [*(name for name in CAPTIONS if name in drawn), *sorted(drawn.keys() - CAPTIONS.keys())]:
        yield _figure(name, CAPTIONS.get(name, name), drawn[name], "image/png", wide=True)
    yield "</div>"


def chart(name: str, caption: str, draw: Callable[[Path], None]) -> str:
    """A picture drawn for the report, with what to see in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chart.svg"
        draw(path)
        return _figure(name, caption, path.read_bytes(), "image/svg+xml", wide=False)


def _learning(name: str, told: str, points: dict[str, curves.Points], marks: dict[str, float], *words: str) -> str:
    return chart(name, told, lambda path: curves.learning(path, points, marks, *words))


def _bytes_per_token(each: Outputs) -> float:
    size: float = each.evaluation["bytes"] / each.evaluation["tokens"]
    return size


def marks_of(runs: Sequence[Outputs]) -> dict[str, float]:
    """The baselines of the text that all runs were measured on; none where it is not one text, or not known."""
    found = [each.evaluation["baselines"] for each in runs if each.evaluation]
    one_text = len({each.run.settings.get("text") for each in runs}) == 1
    return found[0] if found and one_text and all(marks == found[0] for marks in found) else {}


def _figure(name: str, caption: str, data: bytes, kind: str, wide: bool) -> str:
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    image = f'<img class="chart" alt="{html.escape(f"{name}. {caption}")}" src="{source}">'
    shape = ' class="wide"' if wide else ""
    return (
        f'<figure id="chart-{html.escape(name.replace(" ", "-"))}"{shape}><div class="scroll">{image}</div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
