"""A race on one text: loss against time of TinyGPT, nanoGPT and nanochat, on this machine, in one run.

    python -m benchmark.race --text tinyshakespeare.txt --nanogpt ../nanoGPT --nanochat ../nanochat --repeats 3
    python -m benchmark.race --text tinyshakespeare.txt --nanogpt ../nanoGPT --device cuda --reference-repeats 1

The first is for a CPU, the second for a GPU, with nanoGPT's GPU recipe. Each writes every run with its curve to
benchmark/race.json (race_cuda.json), draws docs/race.png (race_cuda.png), and prints a table and the ratios. The
references are checkouts, copied before they run; without an option, a reference is left out. TinyGPT runs its
pipeline's stages in a temporary folder, with one run per goal, whose learning rate schedule ends at the goal: a loss in
the middle of a longer schedule is higher than necessary. Each repeat of TinyGPT has another seed.
"""

import argparse
import re
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmark import common
from benchmark.common import ROOT, Watched, python, watch
from benchmark.references import Curve, NanoChat, NanoGPT, Result, compiled_anew
from tinygpt import console
from tinygpt.bench import figures
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, read_table, write_json

COMMON = {"download.source": "files", "tokenize.kind": "bpe"}
SHORT = {  # runs of seconds: a smaller context, a higher learning rate, fewer validation tokens
    "model.n_layer": 2,
    "model.context_length": 64,
    "train.batch_size": 8,
    "train.learning_rate": 0.02,
    "train.warmup_steps": 10,
    "train.eval_every": 50,
    "train.eval_tokens": 8192,
}
MINUTE = {"tokenize.vocab_size": 1024, "train.steps": 1250, "train.weight_decay": 0.3, "train.average": 0.2}
FIVE_MINUTES = {
    "tokenize.vocab_size": 1024,
    "model.n_layer": 3,
    "model.n_head": 3,
    "model.n_embd": 192,
    "model.context_length": 256,
    "train.steps": 2300,
    "train.learning_rate": 0.015,
    "train.weight_decay": 0.3,
    "train.average": 0.3,
}


@dataclass(frozen=True)
class Course:
    """The runs on one kind of device, and their goals."""

    runs: dict[str, dict[str, Any]]  # name → changes to params.yaml and COMMON
    matches: dict[str, tuple[str, int]]  # reference → TinyGPT's run, and the goal: how many times as fast
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)  # run → goals: seconds, bits per byte


COURSES = {
    "cpu": Course(
        runs={
            "as good as nanoGPT": SHORT
            | {
                "tokenize.vocab_size": 1024,
                "model.n_embd": 64,
                "model.n_head": 2,
                "train.learning_rate": 0.03,
                "train.steps": 130,
            },
            "as good as nanochat": SHORT | {"train.steps": 320},
            "60 seconds": MINUTE,
            "5 minutes": FIVE_MINUTES,
        },
        matches={"nanoGPT": ("as good as nanoGPT", 15), "nanochat": ("as good as nanochat", 8)},
        limits={"60 seconds": (60, 2.120), "5 minutes": (300, 2.026)},
    ),
    "cuda": Course(
        runs={
            # wider, with four times the batch: a step takes hardly longer on a GPU, and far fewer are needed
            "as good as nanoGPT": MINUTE
            | {
                "model.n_embd": 192,
                "train.batch_size": 32,
                "train.steps": 300,
                "train.learning_rate": 0.015,
            },
            "better": FIVE_MINUTES,
        },
        matches={"nanoGPT": ("as good as nanoGPT", 10)},
    ),
}
A100 = 2.120  # bits per byte published for nanoGPT's GPU recipe: three minutes on an A100


def main() -> None:
    options = arguments()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = options.text.resolve()
        references: list[NanoGPT | NanoChat] = []
        if options.nanogpt:
            references.append(NanoGPT(options.nanogpt, text, folder, options.device))
        if options.nanochat:
            references.append(NanoChat(options.nanochat, text, folder))
        pipelines = [prepare(run, text, folder, options.device) for run in options.runs]
        for repeat in range(options.repeats):  # interleaved, so that other load slows all of them
            for reference in references if repeat < options.reference_repeats else []:
                results.append(printed(reference.run(repeat)))
            for run, pipeline in zip(options.runs, pipelines, strict=True):
                results.append(printed(train(run, text, pipeline, options.device, repeat)))
        compressors = baselines(pipelines)
    report(results, options, compressors)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Race TinyGPT against nanoGPT and nanochat on one text.")
    parser.add_argument("--text", type=common.file, required=True, help="the text, UTF-8; its last tenth is held out")
    parser.add_argument("--nanogpt", type=common.checkout, help="a checkout of nanoGPT; it is copied, not changed")
    parser.add_argument("--nanochat", type=common.checkout, help="a checkout of nanochat; it is copied, not changed")
    parser.add_argument(
        "--device", type=common.device, default="cpu", choices=list(COURSES), help="cuda for a GPU, without nanochat"
    )
    parser.add_argument("--repeats", type=common.at_least_one, default=3, help="repeats of each run")
    parser.add_argument("--reference-repeats", type=int, help="repeats of each reference; by default as many")
    parser.add_argument("--runs", nargs="+", help="TinyGPT's runs; by default all for the device")
    parser.add_argument("--results", type=Path, help="the JSON file to write")
    parser.add_argument("--figure", type=Path, help="the PNG to write")
    options = parser.parse_args()
    known, suffix = COURSES[options.device].runs, "" if options.device == "cpu" else f"_{options.device}"
    options.runs = options.runs or list(known)
    for run in options.runs:
        if run not in known:
            parser.error(f"there is no run {run!r} on {options.device}; choose from {', '.join(map(repr, known))}")
    if options.nanochat and options.device != "cpu":
        parser.error("nanochat's recipe is for a CPU; leave --nanochat out")
    options.reference_repeats = options.repeats if options.reference_repeats is None else options.reference_repeats
    options.results = options.results or ROOT / f"benchmark/race{suffix}.json"
    options.figure = options.figure or ROOT / f"docs/race{suffix}.png"
    return options


def prepare(run: str, text: Path, folder: Path, device: str) -> Paths:
    """The pipeline folder of one of TinyGPT's runs, with the text downloaded and tokenized."""
    paths = Paths(folder / f"run-{list(COURSES[device].runs).index(run)}")
    paths.folder.mkdir()
    write_parameters(run, text, paths, device, seed=1337)
    for name in ("download", "tokenize"):
        stage(name, paths)
    return paths


def write_parameters(run: str, text: Path, paths: Paths, device: str, seed: int) -> None:
    changes = COMMON | COURSES[device].runs[run] | {"train.device": device, "download.path": str(text)}
    values = common.parameters(changes) | {"seed": seed}
    paths.params.write_text(yaml.safe_dump(values), encoding="utf-8")


def stage(name: str, paths: Paths, repeat: int = 0) -> Watched:
    """Run one of the pipeline's stages; its `.tinygpt` (runs in progress, the log) is in the pipeline's folder."""
    environment = {"DVC_ROOT": str(paths.folder)} | compiled_anew(paths.folder, repeat)
    return watch(python("-m", f"stages.{name}", str(paths.folder)), ROOT, environment)


def train(run: str, text: Path, paths: Paths, device: str, repeat: int) -> Result:
    """Train and evaluate one of TinyGPT's runs, with its own seed."""
    write_parameters(run, text, paths, device, seed=1337 + repeat)
    watched = stage("train", paths, repeat)
    stage("evaluate", paths)
    metrics = read_json(paths.evaluation / "metrics.json")
    scale = metrics["bits_per_byte"] / metrics["loss"]  # bits per byte in one nat per token
    losses = {row["step"]: row["loss"] * scale for row in read_table(paths.training / "validation.tsv")}
    curve = [(seconds, losses[step]) for seconds, step in steps_shown(watched.lines)]
    seconds = curve[-1][0] - watched.first("compiled: ")  # printed just before the first step
    return Result("TinyGPT", run, repeat, watched.seconds, seconds, metrics["bits_per_byte"], curve)


def steps_shown(lines: Iterable[tuple[float, str]]) -> list[tuple[float, int]]:
    """(seconds, step) of each validation step that `stages.train` prints."""
    found = [(seconds, re.match(r"step (\d+)/\d+ ", line)) for seconds, line in lines]
    return [(seconds, int(match[1])) for seconds, match in found if match]


def printed(result: Result) -> Result:
    print(
        f"{result.system}, {result.run}: {result.bits_per_byte:.3f} bits per byte, {result.whole_seconds:.1f} s, "
        f"including {result.step_seconds:.1f} s of steps",
        flush=True,
    )
    return result


def baselines(pipelines: list[Paths]) -> dict[str, float]:
    """The compressors' baselines on the same held-out text, in bits per byte."""
    if not pipelines:
        return {}
    bits = read_json(pipelines[0].baselines)["bits_per_byte"]
    return {name: bits[name] for name in ("bz2", "xz", "ppmd")}


def report(results: list[Result], options: argparse.Namespace, compressors: dict[str, float]) -> None:
    """Write every run, draw the median one of each kind, and print the table and the ratios."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.system, result.run), []).append(result)
    references, course = {"nanoGPT": options.nanogpt, "nanochat": options.nanochat}, COURSES[options.device]
    record = {
        "machine": common.machine(torch.device(options.device)),
        "versions": {name: common.commit(path) for name, path in {"TinyGPT": ROOT, **references}.items() if path},
        "baselines": compressors,
        "runs": {run: COMMON | course.runs[run] for run in options.runs},
        "verdicts": verdicts(groups, course),
        "results": [asdict(result) for result in results],
    }
    write_json(options.results, record)
    drawn = {f"{system}, {run}": median_run(group) for (system, run), group in groups.items()}
    figures.race(options.figure, drawn, compressors | {"nanoGPT on an A100": A100})
    print(f"\n{record['machine']}\n")
    common.print_table([("system", "run", "bits per byte", "whole process, s", "steps, s"), *map(row, groups.values())])
    print("\n" + "\n".join(record["verdicts"]))


def median_run(group: list[Result]) -> tuple[Curve, tuple[float, float]]:
    """The curve of the run with the median final loss, and its (seconds, bits per byte of the whole held-out text)."""
    result = sorted(group, key=lambda result: (result.bits_per_byte, result.whole_seconds))[len(group) // 2]
    return result.curve, (result.seconds_to_best, result.bits_per_byte)


def row(group: list[Result]) -> tuple[str, ...]:
    """A row of the table: medians, with the extremes in brackets."""
    values = ("bits_per_byte", ".3f"), ("whole_seconds", ".1f"), ("step_seconds", ".1f")
    return (group[0].system, group[0].run, *(spread([getattr(r, name) for r in group], form) for name, form in values))


def spread(values: list[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return format(statistics.median(values), form) + (f" ({low}–{high})" if low != high else "")


def verdicts(groups: dict[tuple[str, str], list[Result]], course: Course) -> list[str]:
    """One sentence per goal, from the medians; goals without runs are left out."""
    bits = {key: statistics.median(r.bits_per_byte for r in group) for key, group in groups.items()}
    whole = {key: statistics.median(r.seconds_to_best for r in group) for key, group in groups.items()}
    steps = {key: statistics.median(r.step_seconds for r in group) for key, group in groups.items()}
    sentences = []
    for reference in (key for key in groups if key[0] in course.matches):
        run, times = course.matches[reference[0]]
        ours = ("TinyGPT", run)
        if ours in groups:
            ratio, reached = whole[reference] / whole[ours], bits[ours] <= bits[reference]
            sentences.append(
                f"{mark(reached and ratio >= times)}: {reference[0]} takes {whole[reference]:.1f} s to "
                f"{bits[reference]:.3f} bits per byte, TinyGPT {whole[ours]:.1f} s to {bits[ours]:.3f}: "
                f"1/{ratio:.1f} of it (goal 1/{times})."
            )
    for run, (limit, goal) in course.limits.items():
        ours = ("TinyGPT", run)
        if ours in groups:
            sentences.append(
                f"{mark(bits[ours] <= goal and steps[ours] <= limit)}: {bits[ours]:.3f} bits per byte (goal {goal}) "
                f"after {steps[ours]:.1f} s of training (goal {limit} s)."
            )
    return sentences


def mark(reached: bool) -> str:
    return "reached" if reached else "not reached"


if __name__ == "__main__":
    with console.prepared(ignore_write_errors=True):
        main()
