"""Tokens per second of TinyGPT and other projects: training and decoding with equal shapes and batches, in one run.

    python -m benchmark.beside --nanogpt ../nanoGPT --repeats 5

writes benchmark/beside.json (with `--device cuda --tasks train` beside_cuda_train.json) and prints a table. Each system
runs in a process of its own (benchmark/worker.py); repeats are interleaved, so that other load on the machine slows all
of them. Medians are compared, extremes are shown. In decoding llama.cpp is the prebuilt one of the package xllamacpp,
or the program that `--llama-bench` names, built from source for this machine.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmark import common
from benchmark.worker import BATCHES, SIZES, Task, write_model
from tinygpt import console
from tinygpt.export import gguf
from tinygpt.files.text import write_json
from tinygpt.model import hardware

Speeds = dict[Task, dict[str, list[float]]]  # task → system → tokens per second of each repeat
GOALS: dict[tuple[str, str | int, str], float] = {  # TinyGPT's goal on a CPU: how many times as fast
    ("train", "fp32", "nanoGPT"): 1.2,
    ("train", "bf16", "nanoGPT"): 2.0,  # nanoGPT trains in fp32 on a CPU
    ("decode", 1, "nanoGPT"): 10.0,  # at 10.9 million parameters
    ("decode", 1, "transformers"): 8.0,
    ("decode", 16, "transformers"): 4.0,  # at 0.9 million parameters, 3 at 10.9
    ("decode", 1, "llama.cpp"): 1.5,  # at 0.9 million parameters, 1.1 at 10.9
}
ON_A_CPU = ("TinyGPT int8", "llama.cpp", "llama.cpp q8_0")  # int8 saves time, and xllamacpp is built, for CPUs alone
SYSTEMS = ("TinyGPT", "nanoGPT", "transformers", *ON_A_CPU)
GOAL_ON_GPU = 1.2  # in training, compared with nanoGPT, both compiled


class Worker:
    """A process that measures tasks for one system."""

    def __init__(self, system: str, folder: Path, device: str) -> None:
        command = [sys.executable, "-m", "benchmark.worker", system, str(folder), device]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=common.ROOT, stdin=pipe, stdout=pipe, text=True)

    def speed(self, task: Task) -> float:
        """Tokens per second of one repeat; the first repeat of a task comes after a warm-up."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"A worker stopped at {task}; what went wrong is printed above.")
        value: float = json.loads(answer)
        return value

    def close(self) -> None:
        self.process.communicate()  # the worker exits at the end of its input


class LlamaBench:
    """llama.cpp's own benchmark program, started for each repeat; it warms up by itself."""

    def __init__(self, program: Path, folder: Path, number_type: gguf.NumberType) -> None:
        self.program, self.folder, self.number_type = program, folder, number_type

    def speed(self, task: Task) -> float:
        _, size, shape, _ = task
        model = self.folder / f"{shape}-{size}-{self.number_type}.gguf"
        if not model.is_file():
            gguf.write(self.folder / f"{shape}-{size}", model, self.number_type)
        arguments = ["-m", model, "-p", 0, "-n", SIZES[size]["context_length"] - 1, "-r", 1, "-o", "json"]
        arguments += ["-t", torch.get_num_threads()]
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, check=True)
        value: float = json.loads(done.stdout)[0]["avg_ts"]
        return value

    def close(self) -> None:
        """Nothing runs between repeats."""


def start(system: str, folder: Path, device: torch.device, llama_bench: Path | None) -> Worker | LlamaBench:
    """What measures a system."""
    if llama_bench and system.startswith("llama.cpp"):
        return LlamaBench(llama_bench, folder, "q8_0" if system.endswith("q8_0") else "f32")
    return Worker(system, folder, device.type)


def main() -> None:
    options = arguments()
    device = hardware.pick_device(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common.copied(options.nanogpt, folder / "nanoGPT")
        for size in SIZES.keys() - BATCHES.keys():
            for shape in ("gpt2", "qwen3"):
                write_model(folder / f"{shape}-{size}", shape, size)
        speeds: Speeds = {}
        for kind in ("train", "decode") if options.tasks == "all" else (options.tasks,):
            # new processes for each kind: training keeps freed memory, decoding does not
            selected = [task for task in tasks(device) if task[0] == kind]
            systems = {
                system: start(system, folder, device, options.llama_bench)
                for system in SYSTEMS
                if any(takes_part(system, task) for task in selected)
                and (device.type == "cpu" or system not in ON_A_CPU)
            }
            speeds |= measure(systems, selected, options.repeats)
            for system in systems.values():
                system.close()
    report(speeds, device, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare TinyGPT's tokens per second with other projects.")
    parser.add_argument(
        "--nanogpt", type=common.checkout, required=True, help="a checkout of nanoGPT; it is copied, not changed"
    )
    parser.add_argument("--llama-bench", type=common.file, help="the program llama-bench of llama.cpp")
    parser.add_argument("--repeats", type=common.at_least_one, default=5, help="repeats of each task and system")
    parser.add_argument("--device", type=common.device, default="auto", help="auto | cpu | cuda")
    parser.add_argument("--tasks", default="all", choices=["all", "train", "decode"], help="what to measure")
    parser.add_argument("--results", type=Path, help="the JSON file to write")
    options = parser.parse_args()
    needed = ("transformers", "gguf", *(() if options.llama_bench else ("xllamacpp",)))
    missing = [name for name in needed if options.tasks != "train" and importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"{', '.join(missing)} missing. Run `pip install -c requirements.lock -e '.[test]'` first.")
    parts = [part for part in (options.device, options.tasks) if part not in ("auto", "cpu", "all")]
    options.results = options.results or common.ROOT / f"benchmark/{'_'.join(['beside', *parts])}.json"
    return options


def tasks(device: torch.device) -> list[Task]:
    """(kind, size, shape, sequences or precision) of all tasks for this device."""
    fast = hardware.pick_precision("auto", device)
    precisions = [fast] if device.type == "cuda" else sorted({"fp32", fast}, reverse=True)
    training: list[Task] = [("train", size, "gpt2", precision) for size in BATCHES for precision in precisions]
    shapes = [(size, shape) for size in SIZES if size not in BATCHES for shape in ("gpt2", "qwen3")]
    return training + [("decode", size, shape, count) for size, shape in shapes for count in (1, 16)]


def takes_part(system: str, task: Task) -> bool:
    """nanoGPT has only GPT-2's shape; 16 sequences would take minutes, because it has no KV cache.

    transformers and llama.cpp are not measured in training, and llama.cpp's program measures one sequence.
    """
    kind, _, shape, detail = task
    if system == "nanoGPT":
        return shape == "gpt2" and detail != 16
    if system == "transformers":
        return kind == "decode"
    if system == "TinyGPT int8":
        return kind == "decode"
    return system == "TinyGPT" or (kind == "decode" and detail == 1)


def measure(systems: Mapping[str, Worker | LlamaBench], tasks: list[Task], repeats: int) -> Speeds:
    """The speeds of all systems, with interleaved repeats."""
    speeds: Speeds = {}
    for task in tasks:
        taking_part = {name: system for name, system in systems.items() if takes_part(name, task)}
        speeds[task] = {name: [] for name in taking_part}
        for _ in range(repeats):
            for name, system in taking_part.items():
                speeds[task][name].append(system.speed(task))
        print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return speeds


def rows(speeds: Speeds) -> list[dict[str, Any]]:
    """One row for each task and system: the median, the extremes, and how many times as fast TinyGPT is."""
    table = []
    for (kind, size, shape, detail), answers in speeds.items():
        ours = statistics.median(answers["TinyGPT"])
        for system, values in answers.items():
            middle = statistics.median(values)
            labels = {"kind": kind, "size": size, "shape": shape, "detail": detail, "system": system}
            numbers = {"tokens_per_second": middle, "slowest": min(values), "fastest": max(values)}
            table.append(labels | numbers | {"tinygpt_is_times_as_fast": ours / middle})
    return table


def report(speeds: Speeds, device: torch.device, options: argparse.Namespace) -> None:
    """Write the results and print the table."""
    table = rows(speeds)
    versions = {"TinyGPT": common.commit(common.ROOT), "nanoGPT": common.commit(options.nanogpt)}
    for name in ("torch", "transformers", "xllamacpp"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    results = {"machine": common.machine(device), "versions": versions, "repeats": options.repeats, "rows": table}
    write_json(options.results, results)
    print(f"{results['machine']}\n")
    head = ("task", "size", "shape", "", "system", "tokens/s", "slowest–fastest", "TinyGPT is × as fast", "goal")
    common.print_table([head, *((*shown(row), goal(row, device)) for row in table)])


def goal(row: dict[str, Any], device: torch.device) -> str:
    """The goal for the ratio in a row; empty if there is none."""
    if device.type == "cuda":
        return f"{GOAL_ON_GPU:g}" if (row["kind"], row["system"]) == ("train", "nanoGPT") else ""
    if (row["kind"], row["size"], row["system"]) == ("decode", "0.9M", "nanoGPT"):
        return ""
    times = GOALS.get((row["kind"], row["detail"], row["system"]))
    if row["size"] == "10.9M":
        times = {("llama.cpp", 1): 1.1, ("transformers", 16): 3.0}.get((row["system"], row["detail"]), times)
    return "" if times is None else f"{times:g}"


def shown(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as the table prints it."""
    detail = row["detail"] if row["kind"] == "train" else f"{row['detail']} at once"
    ratio = "" if row["system"] == "TinyGPT" else f"{row['tinygpt_is_times_as_fast']:.2f}"
    speed, extremes = f"{row['tokens_per_second']:.0f}", f"{row['slowest']:.0f}–{row['fastest']:.0f}"
    return (row["kind"], row["size"], row["shape"], detail, row["system"], speed, extremes, ratio)


if __name__ == "__main__":
    with console.prepared(ignore_write_errors=True):
        main()
