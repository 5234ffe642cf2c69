"""The ablation study: train every entry of benchmark/ablations.yaml with each seed, through DVC's queue.

    make ablations                                     # or: python -m benchmark.ablations --only gelu layernorm

queues missing runs (`dvc exp run --queue`), starts one single-threaded worker per core (`dvc queue start`), waits, adds
each finished run to benchmark/ablations.jsonl, and updates the tables and the figure of docs/experiments.md. A run
exists if one with the same settings, seed and code is in that file or among DVC's experiments, so the study can be
interrupted and continued. `--time` measures the time per step of entries that are to train as long as the base;
`--tables` only updates the page.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark import ablation_tables
from benchmark.common import ROOT, parameters
from tinygpt import config, console, yaml_files
from tinygpt.data.dataset import TokenDataset
from tinygpt.experiments import runs
from tinygpt.experiments.runs import Run
from tinygpt.files.text import read_json, write_json, write_text
from tinygpt.model import hardware
from tinygpt.model.gpt import GPTConfig
from tinygpt.training.loop import train
from tinygpt.training.state import initial_state

PLAN, RESULTS, TIMES = (ROOT / "benchmark" / name for name in ("ablations.yaml", "ablations.jsonl", "step_times.json"))
CLOSE = 0.05  # relative difference of step times, about the noise of timing, below which no equal-time run is made
POLL = 15  # seconds between two polls, which cost DVC and git a second or two
ROUNDS = 80  # of timed steps, one of each entry per round
LATER = {  # settings that older runs lack → the value that reproduces the older behaviour
    "tokenize.algorithm": "unigram",
    "tokenize.from": None,
    "train.average": 0.0,
    "train.init_from": None,
    "train.document_mask": False,
    "train.lora_rank": 0,
    "train.lora_alpha": 16.0,
}


@dataclass(frozen=True)
class Entry:
    """One setting to train: its name, everything that it sets, the seeds."""

    name: str
    group: str
    changes: dict[str, Any]  # the settings that differ from the base
    settings: dict[str, Any]  # all settings, including the base's
    seeds: list[int]
    same_time: bool = field(default=False)

    def others(self, known: Iterable[Run], seed: int) -> list[Run]:
        """The known runs except those of this entry with this seed, of any code version."""
        return [run for run in known if not (run.seed == seed and self.of([run]))]

    def of(self, known: Iterable[Run], code: str | None = None) -> list[Run]:
        """The known runs of this entry, at most one per seed; only of one code version if `code` is given."""
        own = {key: value for key, value in self.settings.items() if not key.startswith("download.")}
        found = {}
        for run in known:
            equal = all(run.settings.get(key, LATER.get(key, run)) == value for key, value in own.items())
            if equal and run.seed in self.seeds and code in (None, run.settings["code"]):
                found[run.seed] = run
        return [found[seed] for seed in sorted(found)]


def main() -> None:
    options = arguments()
    entries = plan()
    if options.time:
        write_json(TIMES, step_times([entry for entry in entries if entry.same_time or entry.name == "default"]))
        entries = plan()
    chosen = [entry for entry in entries if not options.only or entry.name in options.only]
    if not (options.time or options.tables):
        run(chosen)
    ablation_tables.renew_page(entries, load_results())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train every entry of benchmark/ablations.yaml through DVC's queue.")
    names = [entry.name for entry in plan()]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--time", action="store_true", help="measure the seconds per step of each entry; trains nothing"
    )
    parser.add_argument("--tables", action="store_true", help="update the page from the results; trains nothing")
    return parser.parse_args()


def plan(file: Path = PLAN, times: Path = TIMES) -> list[Entry]:
    """Every entry of a plan, including equal-time repeats and the sizes of the scaling study."""
    values = yaml_files.read_yaml(file)
    base, seeds = values["base"], values["seeds"]
    ratios = read_json(times) if times.is_file() else {}
    entries = []
    for item in values["ablations"]:
        entry = Entry(
            item["name"],
            item["group"],
            item["set"],
            base | item["set"],
            item.get("seeds", seeds),
            item.get("same_time", False),
        )
        entries.append(entry)
        ratio = ratios.get(entry.name, 1.0)
        if entry.same_time and abs(ratio - 1) > CLOSE:
            entries.append(as_long(entry, round(base["train.steps"] / ratio)))
    return [*entries, *scaling(file)]


def as_long(entry: Entry, steps: int) -> Entry:
    """The entry with the number of steps that take as long as the base."""
    changes = entry.changes | {"train.steps": steps}
    return Entry(f"{entry.name}-time", "time", changes, entry.settings | changes, entry.seeds)


def scaling(file: Path = PLAN) -> list[Entry]:
    """The runs of the scaling study: each size with each number of steps; the last size has the group `forecast`."""
    values = yaml_files.read_yaml(file)
    study = values["scaling"]
    found = []
    for group, sizes in (("scaling", study["sizes"]), ("forecast", [study["forecast"]])):
        for size in sizes:
            for steps in size["steps"]:
                changes = study["set"] | size["set"] | {"train.steps": steps}
                seeds = size.get("seeds", study["seeds"])
                found.append(Entry(f"{size['name']}-{steps}", group, changes, values["base"] | changes, seeds))
    return found


def run(entries: list[Entry]) -> None:
    """Train the missing runs of these entries, and add them to the results."""
    code = runs.code_here(ROOT)
    missing = collect(entries, code)  # includes runs that an interrupted call left in DVC
    print(f"{len(missing)} runs to do, of {sum(len(entry.seeds) for entry in entries)}", flush=True)
    enqueue(entries, missing - waiting())
    while missing:
        if not missing & waiting():
            missing = collect(entries, code)
            if missing:
                names = " ".join(sorted(missing))
                raise RuntimeError(f"DVC's queue is done, but holds no result of {names}; `dvc queue logs` says why.")
            break
        start_workers()
        time.sleep(POLL)
        missing = collect(entries, code)


def enqueue(entries: list[Entry], names: set[str]) -> None:
    """Put the runs of these names into DVC's queue."""
    for entry in entries:
        seeds = [seed for seed in entry.seeds if f"{entry.name}-{seed}" in names]
        for seed in seeds:
            if runs.of_experiments(f"{entry.name}-{seed}", runs.commit_here()):
                dvc("exp", "remove", f"{entry.name}-{seed}")  # of the same commit, but older uncommitted code
        # DVC numbers the members of a grid from 1, like the seeds if all are missing: one command is faster than many
        grid = len(seeds) > 1 and seeds == list(range(1, len(seeds) + 1))
        for some in [seeds] if grid else [[seed] for seed in seeds]:
            dvc(*queue_arguments(entry, some))


def queue_arguments(entry: Entry, seeds: list[int]) -> list[str]:
    """The arguments for dvc that queue runs; they stop after `evaluate`, because samples are not needed."""
    name = entry.name if len(seeds) > 1 else f"{entry.name}-{seeds[0]}"
    values = [value if isinstance(value, str) else json.dumps(value) for value in entry.settings.values()]
    pairs = [f"{key}={value.replace(' ', '')}" for key, value in zip(entry.settings, values, strict=True)]
    options = [argument for pair in (f"seed={','.join(map(str, seeds))}", *pairs) for argument in ("-S", pair)]
    return ["exp", "run", "--queue", "--name", name, *options, "evaluate"]


def collect(entries: list[Entry], code: str) -> set[str]:
    """Add finished runs among DVC's experiments to the results; returns the names of runs still missing."""
    known, missing = load_results(), set()
    for entry in entries:
        done = {run.seed for run in entry.of(known, code)}
        for seed in entry.seeds:
            name = f"{entry.name}-{seed}"
            found = [] if seed in done else entry.of(runs.of_experiments(name), code)
            for run in found:
                print(f"{name}: {run.bits_per_byte:.4f} bits per byte", flush=True)
                known = [*entry.others(known, seed), run]
            if seed not in done and not found:
                missing.add(name)
    write_text(RESULTS, "".join(run.to_json() + "\n" for run in sorted(known, key=lambda run: run.name)))
    return missing


def load_results() -> list[Run]:
    return runs.of_results(RESULTS) if RESULTS.is_file() else []


def waiting() -> set[str]:
    """The names of the queued and running experiments."""
    rows = [line.split() for line in dvc("queue", "status").splitlines()]
    return {row[1] for row in rows if row and row[-1] in ("Queued", "Running")}


def start_workers() -> None:
    """Start one single-threaded worker per core, unless as many are running.

    They outlive the command that starts them and would keep its output pipe open, so it gets none.
    """
    command = ["dvc", "queue", "start", "--jobs", str(os.cpu_count())]
    env, nowhere = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.DEVNULL
    subprocess.run(command, cwd=ROOT, env=env, stdin=nowhere, stdout=nowhere, stderr=nowhere, check=True)


def dvc(*words: str) -> str:
    """dvc's output. Raises RuntimeError with its error output if it fails."""
    done = subprocess.run(["dvc", *words], cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise RuntimeError(f"`dvc {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def step_times(entries: list[Entry]) -> dict[str, float]:
    """The training time of each entry as a multiple of the default's.

    The median over rounds of one step per entry, on one thread and random tokens; interleaving spreads other load on
    the machine over all entries.
    """
    torch.set_num_threads(1)
    steppers = {entry.name: stepper(entry) for entry in entries}
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    order = random.Random(0)
    for _ in range(ROUNDS):
        for name in order.sample(
            list(steppers), len(steppers)
        ):  # shuffled, because a step affects the CPU caches for the next
            begin = time.perf_counter()
            next(steppers[name])
            seconds[name].append(time.perf_counter() - begin)
    base = entries[0].settings["train.steps"]
    factors = {entry.name: entry.settings["train.steps"] / base for entry in entries}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {name: round(medians[name] * factors[name] / medians["default"], 3) for name in steppers}


def stepper(entry: Entry) -> Iterator[Any]:
    """Train an entry on random tokens; each item is a step."""
    values = parameters(entry.settings | {"train.eval_tokens": 1024})
    params = config.check(values)
    vocabulary = {"char": 96}.get(params.tokenize.kind, params.tokenize.vocab_size)
    tokens = np.random.default_rng(0).integers(0, vocabulary, 100_000).astype(np.uint16)
    device = torch.device("cpu")
    precision = hardware.pick_precision(params.train.precision, device)
    shape = GPTConfig(vocab_size=vocabulary, **params.model.model_dump())
    state = initial_state(shape, params.train, 1, device, precision)
    windows = TokenDataset(tokens, shape.context_length)
    return train(state, params.train, {"train": windows, "validation": windows}, 1, precision)


if __name__ == "__main__":
    with console.prepared(ignore_write_errors=True):
        main()
