"""Training speed on a loaded machine, for several settings of how OpenMP's threads wait for each other.

    python -m benchmark.busy                                  # three rounds with 0, 3 and 6 busy programs
    python -m benchmark.busy --waits GOMP_SPINCOUNT=3000 threads=1 --busy 0 4 --steps 100

Each measurement is a new process that trains the default model on random tokens; settings and loads are interleaved.
Reports tokens per second after start-up (median, lowest to highest) and seconds of the whole process.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from benchmark.common import ROOT
from tinygpt import config, console
from tinygpt.model import hardware
from tinygpt.model.gpt import GPTConfig
from tinygpt.training.loop import train_step
from tinygpt.training.passes import Passes
from tinygpt.training.state import initial_state

LIBRARY = "GOMP_SPINCOUNT="  # no number: libgomp's default, 300,000
WAITS = [LIBRARY, *(LIBRARY + spins for spins in ("100000", "30000", "10000", "3000", "1000", "300"))]
WAITS += ["OMP_WAIT_POLICY=PASSIVE", "threads=1"]
WARM = 10  # steps before the clock starts


def main() -> None:
    options = arguments()
    if options.train:
        print(train(options.train))
        return
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        for busy in options.busy:
            with programs(busy):
                for wait in options.waits:
                    found.setdefault((wait, busy), []).append(measure(wait, options.steps))
    print("| waiting | " + " | ".join(f"beside {busy}: tokens/s | s in all" for busy in options.busy) + " |")
    print("|---" * (1 + 2 * len(options.busy)) + "|")
    for wait in options.waits:
        cells = [cell for busy in options.busy for cell in summary(found[wait, busy])]
        print("| " + " | ".join([wait if wait != LIBRARY else "libgomp's default", *cells]) + " |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure training speed next to busy programs.")
    parser.add_argument("--waits", nargs="+", default=WAITS, help="environment variables NAME=VALUE, or threads=N")
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 3, 6], help="numbers of busy programs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)  # one measurement, in this process
    return parser.parse_args()


@contextlib.contextmanager
def programs(count: int) -> Iterator[None]:
    """Run `count` busy programs."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


def measure(wait: str, steps: int) -> tuple[float, float]:
    """(tokens per second, seconds of the whole process) of a new process with this setting."""
    name, _, value = wait.partition("=")
    inherited = {key: text for key, text in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    added = {"OMP_NUM_THREADS": value} if name == "threads" else {name: value or "300000"}
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmark.busy", "--train", str(steps)]
    done = subprocess.run(command, env=inherited | added, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout), time.perf_counter() - begin


def train(steps: int) -> float:
    """Tokens per second of `steps` steps of the default model."""
    params, device = config.load(ROOT / "params.yaml"), torch.device("cpu")
    settings = params.train
    shape = GPTConfig(vocab_size=params.tokenize.vocab_size, **params.model.model_dump())
    hardware.make_deterministic()
    hardware.keep_freed_memory()
    precision = hardware.pick_precision(settings.precision, device)
    state = initial_state(shape, settings, params.seed, device, precision)
    passes = Passes(state, precision)
    batch = torch.randint(shape.vocab_size, (settings.batch_size, shape.context_length))
    for step in range(WARM + steps):
        if step == WARM:
            begin = time.perf_counter()
        train_step(state, passes, (batch, batch), settings)
    return steps * batch.numel() / (time.perf_counter() - begin)


def summary(figures: list[tuple[float, float]]) -> list[str]:
    """Medians, the first with its lowest and highest."""
    speeds, seconds = zip(*figures, strict=True)
    low, middle, high = (f"{number / 1000:.1f}k" for number in (min(speeds), statistics.median(speeds), max(speeds)))
    return [f"{middle} ({low} to {high})", f"{statistics.median(seconds):.1f}"]


if __name__ == "__main__":
    with console.prepared():
        main()
