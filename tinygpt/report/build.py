"""The report on one run, or on several side by side: `write(file, [gather(run), …], comparisons)`.

A single HTML file with its pictures inside and without scripts: it opens offline, prints, and has a light and a dark
look. This module gathers data; report.html and macros.html lay it out. Jinja2 escapes everything that a run wrote.
"""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tinygpt.evaluation.tasks.table import interval, label, percent
from tinygpt.experiments import compare
from tinygpt.experiments.artifacts import Outputs, gather
from tinygpt.experiments.compare import Comparison
from tinygpt.experiments.runs import commit_here, distinct
from tinygpt.files.text import write_text
from tinygpt.generation import sample_metrics
from tinygpt.generation.samples import format_number
from tinygpt.plots.style import LABELS
from tinygpt.report import charts, samples

BASELINES = {
    "uniform": "all byte values that occur, equally likely",
    "unigram": "byte frequencies",
    "bigram": "given the previous byte",
    "five_gram": "given the previous four bytes, smoothed",
    "bz2": "size that the held-out text adds to the archive",
    "xz": "size that the held-out text adds to the archive",
    "ppmd": "likewise; it keeps learning as it reads",
}
METRICS = {  # label → key in the run's numbers, format
    "bits per byte": ("bits_per_byte", ".3f"),
    "loss, nats per token": ("loss", ".4f"),
    "perplexity": ("perplexity", ".1f"),
    "parameters": ("parameters", ","),
    "tokens trained on": ("tokens", ","),
    "training compute, TFLOP": ("tflop", ".3g"),
    "steps": ("steps", ","),
    "best validation loss, nats per token": ("best_validation_loss", ".4f"),
    "at step": ("best_step", ","),
}
MOST = 8  # runs in a report


def write(
    file: Path, runs: Sequence[Outputs], comparisons: Sequence[Comparison] = (), notes: Sequence[str] = ()
) -> None:
    """Write the report on one or more runs, with their comparisons and with notes at the top."""
    names = labels(runs)
    settings, differing = _settings(runs)
    lineage, lineage_differing = _lineage(runs)
    environment = Environment(
        loader=PackageLoader("tinygpt.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        names=names,
        verdicts=[_verdict(each) for each in runs],
        notes=notes,
        comparison="\n".join(compare.report(comparisons)),
        missing=_missing(runs, names),
        metrics=_metrics(runs),
        baselines=_baselines(runs, names),
        bars=charts.bars(runs, names),
        tasks=_tasks(runs),
        curves=charts.learning_curves(runs, names),
        settings=settings,
        differing=differing,
        samples=samples.by_prompt(runs),
        grids=samples.grids(runs, names),
        meanings=sample_metrics.MEANING,
        lineage=lineage,
        lineage_differing=lineage_differing,
        pictures=charts.pictures(runs[0]) if len(runs) == 1 else [],
    )
    write_text(file, page)


def make(
    file: Path, sets: Sequence[str], results: Path | None, allowed: Sequence[str], say: Callable[[str], object]
) -> None:
    """Find the runs of the sets, write their report, and `say` where it is.

    sets: as in experiments/compare.py. The report on two sets includes the verdict, or the reason why there is none.
    Raises ValueError for an empty set.
    """
    members = [compare.members(name, results) for name in sets]
    notes: list[str] = []
    comparisons: list[Comparison] = []
    if len(sets) == 2:
        try:
            comparisons = compare.compare(sets[0], sets[1], results, allowed)
            members = [comparisons[0].a.runs, comparisons[0].b.runs]
        except ValueError as problem:
            notes.append(f"No verdict: {problem}")
    found = distinct([run for turn in itertools.zip_longest(*members) for run in turn if run is not None])
    if len(found) > MOST:
        counted = " The verdict includes them." if comparisons else ""
        notes.append(f"The report shows {MOST} runs and leaves out {len(found) - MOST}.{counted}")
    for line in [*notes, *compare.report(comparisons)]:
        say(line)
    write(file, [gather(run) for run in found[:MOST]], comparisons, notes)
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB, open it in a browser; it works offline")


def labels(runs: Sequence[Outputs]) -> list[str]:
    """The name of each run in the report; equal names get a number."""
    plain = ["this folder" if each.run.name == "." else each.run.name for each in runs]
    return [name if plain.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(plain, 1)]


def _missing(runs: Sequence[Outputs], names: Sequence[str]) -> dict[str, list[str]]:
    """Missing files, with how to get them → the runs that lack them."""
    found: dict[str, list[str]] = {}
    for each, name in zip(runs, names, strict=True):
        if each.missing:
            found.setdefault(f"{', '.join(each.missing)}: {each.hint}", []).append(name)
    return found


def _verdict(outputs: Outputs) -> str:
    from tinygpt.evaluation.metrics import verdict

    if outputs.evaluation:
        return verdict(outputs.evaluation, None)
    return f"{outputs.run.bits_per_byte:.3f} bits per byte."


def _metrics(runs: Sequence[Outputs]) -> dict[str, list[str]]:
    """Label → the number of each run."""
    rows = {label: [_number(each, key, form) for each in runs] for label, (key, form) in METRICS.items()}
    seconds = [f"{max(each.seconds.values()):.0f}" if each.seconds else "not recorded" for each in runs]
    return rows | {"training time on this machine, seconds": seconds}


def _number(outputs: Outputs, key: str, form: str) -> str:
    tflop = {"tflop": outputs.run.flops / 1e12}
    value = {**outputs.evaluation, **outputs.training, **vars(outputs.run), **tflop}.get(key)
    error = outputs.evaluation.get("bits_per_byte_standard_error") if key == "bits_per_byte" else None
    return format_number(value, form) + ("" if error is None else f" ± {error:.3f}")


def _baselines(runs: Sequence[Outputs], names: Sequence[str]) -> list[tuple[float, str, str, bool]]:
    """(bits per byte, name, explanation, whether it is a run) of runs and baselines, the worst first."""
    theirs = charts.baselines_of(runs)
    ours = [(each.run.bits_per_byte, name, "", True) for each, name in zip(runs, names, strict=True)] if theirs else []
    rows = [(bits, LABELS.get(name, name), BASELINES.get(name, ""), False) for name, bits in theirs.items()]
    return sorted([*ours, *rows], reverse=True)


def _tasks(runs: Sequence[Outputs]) -> dict[str, list[str]]:
    """Task → its score with the 95% interval in each run, then chance, 5-gram and oracle, where they are equal."""
    found = [each.evaluation.get("tasks", {}) for each in runs]
    rows = {}
    for name in dict.fromkeys(name for tasks in found for name in tasks):
        known = [tasks[name] for tasks in found if name in tasks]
        scores = [f"{percent(t[name]['score'])} ({interval(t[name])})" if name in t else "–" for t in found]
        beside = ({numbers.get(key) for numbers in known} for key in ("chance", "five_gram", "oracle"))
        rows[label(name)] = scores + [percent(values.pop() if len(values) == 1 else None) for values in beside]
    return rows


def _settings(runs: Sequence[Outputs]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Setting → its value in each run, twice: all settings, and those that differ."""
    values = [{"seed": each.run.seed} | each.run.settings for each in runs]
    rows = {key: [str(one.get(key, "–")) for one in values] for one in values for key in one}
    differing = {*compare.differing([each.run for each in runs]), *(["seed"] if len(set(rows["seed"])) > 1 else [])}
    return rows, {key: cells for key, cells in rows.items() if key in differing}


def _lineage(runs: Sequence[Outputs]) -> tuple[dict[str, list[str]], list[str]]:
    """Artifact → the first 16 digits of its hash in each run; and the artifacts whose hashes differ."""
    found = [_hashes(each) for each in runs]
    rows = {key: [hashes[key] for hashes in found] for key in found[0]}
    short = {key: [value[:16] or "not known" for value in values] for key, values in rows.items()}
    return short, [key for key, values in rows.items() if len(set(values)) > 1]


def _hashes(outputs: Outputs) -> dict[str, str]:
    text = outputs.lineage.get("text", {})
    writers = {sample["hashes"]["model"] for sample in outputs.samples}
    return {
        "git commit": outputs.run.commit or (_commit_here() if outputs.run.name == "." else ""),
        "training and evaluation code": str(outputs.run.settings.get("code", "")),
        "training text": text.get("train", ""),
        "held-out text": text.get("validation", ""),
        "tokenizer": outputs.lineage.get("tokenizer", ""),
        "parameters": outputs.lineage.get("params", ""),
        "model": outputs.weights,
        "model that wrote the samples": " ".join(sorted(writers)),
    }


def _commit_here() -> str:
    """The current commit; "" without a repository, such as in an unpacked archive."""
    with contextlib.suppress(OSError):
        return commit_here()
    return ""
