"""Benchmark growing model sizes, each with batches that quadruple, until memory or time runs out.

`run(…)` measures within a budget of seconds and returns a Report, with a note on everything left out. `write` makes a
table and figures from it. Every row is measured in a process of its own (measure.py).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tinygpt.bench import figures
from tinygpt.bench.measure import OUT_OF_MEMORY, REPEATS, Decoding, Job, Training, free_memory, fresh
from tinygpt.config import Params
from tinygpt.files.text import write_json, write_text
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT, GPTConfig, count_parameters, training_flops_per_token
from tinygpt.training import compilation

SIZES = {  # other settings of the model come from params.yaml
    "0.2M": {"n_layer": 2, "n_head": 2, "n_embd": 48, "context_length": 64},
    "1.3M": {"n_layer": 4, "n_head": 4, "n_embd": 128, "context_length": 128},
    "10M": {"n_layer": 6, "n_head": 6, "n_embd": 384, "context_length": 256},
    "30M": {"n_layer": 8, "n_head": 8, "n_embd": 512, "context_length": 512},
    "85M": {"n_layer": 12, "n_head": 12, "n_embd": 768, "context_length": 1024},
}
OWN = {"n_kv_head": None, "head_dim": None, "mlp_hidden": None, "vocab_size": 2000}
LARGEST = 4096  # sequences; larger batches learn less per token
STARTING = 6.0  # seconds until a new process measures
LEAST = 20.0  # seconds granted to a row once started
COMPILING = 60.0  # seconds for compiling at most; a third of them are reserved


@dataclass
class Report:
    """All measurements, and notes on what was left out."""

    machine: str
    peaks: dict[str, float] = field(default_factory=dict)  # FLOP/s, by precision
    training: list[Training] = field(default_factory=list)
    decoding: list[Decoding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def mfu(self, row: Training) -> float:
        """Model FLOPs utilisation: the model's FLOPs as a fraction of the measured peak."""
        return row.flops_per_second / self.peaks[row.precision]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        rows = [asdict(row) | {"mfu": self.mfu(row)} for row in self.training]
        return asdict(self) | {"training": rows, "largest": self.largest(), "fastest": self.fastest()}

    def fastest(self) -> dict[str, dict[str, Any]]:
        """For each size, the row with the most training tokens per second."""
        best = {row.size: row for row in sorted(self.training, key=lambda row: row.tokens_per_second)}
        return {size: asdict(row) for size, row in best.items() if not row.problem}

    def largest(self) -> dict[str, int]:
        """For each size, the largest batch that was measured."""
        return {row.size: row.batch for row in sorted(self.training, key=lambda r: r.batch) if not row.problem}


def shape(size: str, params: Params) -> dict[str, Any]:
    """The fields of GPTConfig for a size of the ladder."""
    return params.model.model_dump() | OWN | SIZES[size]


def precisions(asked: str, device: torch.device) -> tuple[list[str], list[str]]:
    """The precisions to measure, and notes on those left out."""
    if asked not in ("all", "auto"):
        return [hardware.pick_precision(asked, device, "--precision")], []
    found, notes = ["fp32"], []
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        found += ["bf16", "fp16"] if bf16 else ["fp16"]
    elif device.type == "cpu" and hardware.cpu_multiplies_bf16():
        found.append("bf16")
    if "bf16" not in found:
        notes.append(f"bf16 is left out: this {device.type} has no instructions for it, and would emulate it, slowly.")
    if "fp16" not in found:
        notes.append(f"fp16 is left out: training in it needs a CUDA device, and this is {device.type}.")
    return found, notes


class Ladder:
    """One benchmark run: settings, callbacks, report and deadline."""

    def __init__(
        self,
        params: Params,
        device: torch.device,
        budget: float,
        say: Callable[[str], None],
        report: Report,
        begin: Callable[[str], object] = lambda what: None,
    ) -> None:
        self.params, self.device, self.say, self.report, self.begin = params, device, say, report, begin
        self.end = time.monotonic() + budget

    def climb(self, sizes: list[str], precision: str, compiled: bool | None) -> Report:
        """Measure the sizes in the chosen precisions; compiled None: both, compiled only at the fastest batch."""
        chosen, notes = precisions(precision, self.device)
        for note in notes:
            self.note(note)
        for name in chosen:
            self.begin(f"matrix products in {name}")
            row = fresh(Job("peak", str(self.device), name), 120)
            if row.get("problem"):
                raise ValueError(f"Matrix products in {name} cannot be measured here: {row['problem']}.")
            self.report.peaks[name] = row["flops_per_second"]
            self.say(f"matrix products in {name}: {self.report.peaks[name] / 1e9:.0f} GFLOP/s at best")
        for index, size in enumerate(sizes):
            left = self.end - time.monotonic()
            self.climb_size(size, chosen, compiled, time.monotonic() + left / (len(sizes) - index))
        return self.report

    def climb_size(self, size: str, chosen: list[str], compiled: bool | None, end: float) -> None:
        """Measure one size: decoding; quadrupling batches in each precision; compiled at the fastest batch."""
        problem = self.refusal(size, end - time.monotonic())
        if problem:
            self.note(problem)
            return
        for sequences in (1, 16):
            self.decode(size, sequences)
        for index, precision in enumerate(chosen):
            left = end - time.monotonic() - (0 if compiled is False else COMPILING / 3)
            self.widen(size, precision, bool(compiled), time.monotonic() + left / (len(chosen) - index))
        best = self.report.fastest().get(size)
        lacks = compilation.missing(self.device)
        if compiled is None and lacks:
            self.note(f"nothing is compiled: {lacks}")
        elif compiled is None and best:
            self.train(size, best["precision"], True, best["batch"], max(COMPILING, end - time.monotonic()))

    def refusal(self, size: str, seconds: float) -> str:
        """Why a size is not measured, in a sentence; empty if it is."""
        config = GPTConfig(**shape(size, self.params))
        with torch.device("meta"):
            memory = 4 * 4 * count_parameters(GPT(config))  # weights, gradients, optimizer state, activations
        free = free_memory(self.device)
        if memory > free:
            return f"{size} is left out: its weights and their gradients take {memory:,} bytes, and {free:,} are free."
        step = config.context_length * training_flops_per_token(config) / (0.3 * max(self.report.peaks.values()))
        if STARTING + (REPEATS + 1) * step > seconds:
            return (
                f"{size} is left out: it would take over {STARTING + (REPEATS + 1) * step:.0f} s; set --budget higher."
            )
        return ""

    def widen(self, size: str, precision: str, compiled: bool, end: float) -> None:
        """Measure batches of 1, 4, 16, … while they fit and time is left; on CUDA, find the largest that fits.

        Quadrupling, because each row takes seconds to start and doubling changes little.
        """
        fits, batch, row = 0, 1, None
        while batch <= LARGEST:
            free = free_memory(self.device)
            if row is not None:
                cost = row.forecast + (batch - row.batch) * row.forecast_a_sequence
                if self.device.type != "cuda" and cost > free:
                    self.note(
                        f"{size} {precision}: batch {batch} is left out: it should take {cost:,} bytes, of {free:,}."
                    )
                    return
                if STARTING + row.starting + 4 * REPEATS * row.step > end - time.monotonic():
                    room = row.batch + (free - row.forecast) // max(1, row.forecast_a_sequence)
                    self.note(
                        f"{size} {precision}: stopped at batch {row.batch}, where time ran out; "
                        f"by the forecast about {room:,} sequences would fit."
                    )
                    return
            row = self.train(size, precision, compiled, batch, max(LEAST, end - time.monotonic()))
            if row.problem:
                break
            fits, batch = batch, 4 * batch
        if row is not None and row.problem == OUT_OF_MEMORY:
            self.bisect(size, precision, compiled, fits, batch, end)

    def bisect(self, size: str, precision: str, compiled: bool, fits: int, fails: int, end: float) -> None:
        """Find the largest batch that fits, to within an eighth, by bisection."""
        while fails - fits > max(1, fits // 8) and time.monotonic() < end:
            middle = (fits + fails) // 2
            row = self.train(size, precision, compiled, middle, max(LEAST, end - time.monotonic()))
            fits, fails = (fits, middle) if row.problem else (middle, fails)
        self.note(f"{size} {precision}: the largest batch that fits is {fits}; {fails} does not.")

    def train(self, size: str, precision: str, compiled: bool, batch: int, limit: float) -> Training:
        """Measure one row of training, add it to the report and print it."""
        config = shape(size, self.params)
        job = Job(
            "training", str(self.device), precision, compiled, size, batch, config, self.params.train.model_dump()
        )
        what = f"{size}  batch {batch}  {precision}{', compiled' if compiled else ''}"
        self.begin(what)
        found = fresh(job, limit)
        default: dict[str, Any] = {"size": size, "parameters": 0, "context": config["context_length"], "batch": batch}
        default |= {"precision": precision, "compiled": compiled}
        row = Training(**(default | found))
        self.report.training.append(row)
        self.say(line(row, self.report))
        self.note_if_busy(what, row)
        return row

    def decode(self, size: str, sequences: int) -> None:
        """Measure one row of decoding, add it to the report and print it."""
        what = f"{size}  decoding {sequences} at once"
        self.begin(what)
        found = fresh(Job("decoding", str(self.device), "fp32", False, size, sequences, shape(size, self.params)), 60)
        default: dict[str, Any] = {"size": size, "parameters": 0, "sequences": sequences}
        row = Decoding(**(default | found))
        self.report.decoding.append(row)
        self.say(f"{what}: {row.problem or f'{row.tokens_per_second:,.0f} tokens/s'}")
        self.note_if_busy(what, row)

    def note_if_busy(self, what: str, row: Training | Decoding) -> None:
        """Add a note if other programs used the cores during a measurement."""
        if sentence := hardware.busy(row.core_share):
            self.note(f"{what}: {sentence}.")

    def note(self, sentence: str) -> None:
        """Add a note to the report and print it."""
        self.report.notes.append(sentence)
        self.say(sentence)


def line(row: Training, report: Report) -> str:
    """One row as text."""
    what = f"{row.size}  batch {row.batch}  {row.precision}{', compiled' if row.compiled else ''}: "
    if row.problem:
        return what + row.problem
    return what + (
        f"{row.tokens_per_second:,.0f} tokens/s (± {row.spread / 2:.0%}), {1000 * row.step:.0f} ms a step, "
        f"{report.mfu(row):.0%} of the peak, {row.memory / 1e6:,.0f} MB (forecast {row.forecast / 1e6:,.0f})"
    )


def table(report: Report) -> Iterator[str]:
    """All rows as a Markdown table, with the machine above and the notes below."""
    peaks = ", ".join(f"{name} {flops / 1e9:,.0f}" for name, flops in report.peaks.items())
    yield f"{report.machine}; matrix products at best, in GFLOP/s: {peaks}\n"
    heads = ["size", "context", "batch", "precision", "tokens/s", "±", "ms a step", "of the peak"]
    heads += ["MB", "forecast MB", "first step s"]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in report.training:
        kind = row.precision + (", compiled" if row.compiled else "")
        cells = [row.size, row.context, row.batch, kind]
        if row.problem:
            yield "| " + " | ".join(map(str, cells)) + f" | {row.problem} |" + " |" * 6
            continue
        cells += [f"{row.tokens_per_second:,.0f}", f"{row.spread / 2:.0%}", f"{1000 * row.step:.0f}"]
        cells += [f"{report.mfu(row):.0%}", f"{row.memory / 1e6:,.0f}", f"{row.forecast / 1e6:,.0f}"]
        yield "| " + " | ".join(map(str, [*cells, f"{row.starting:.1f}"])) + " |"
    yield "\n| size | decoding one sequence, tokens/s | sixteen |\n|---|---|---|"
    for size in dict.fromkeys(row.size for row in report.decoding):
        speeds = [row.problem or f"{row.tokens_per_second:,.0f}" for row in report.decoding if row.size == size]
        yield f"| {size} | " + " | ".join(speeds) + " |"
    yield ""
    for size, best in report.fastest().items():
        yield f"- {size}: fastest at batch {best['batch']}; the largest measured is {report.largest()[size]}."
    yield from (f"- {note}" for note in report.notes)


def run(
    params: Params,
    sizes: list[str],
    budget: float,
    device: str,
    precision: str,
    compiled: bool | None,
    say: Callable[[str], None],
    begin: Callable[[str], object] = lambda what: None,
) -> Report:
    """Run the benchmark on this machine. Raises ValueError for an unknown size or a missing device.

    `say` is called with each row and note, `begin` with the name of the next measurement.
    """
    unknown = [size for size in sizes if size not in SIZES]
    if unknown:
        raise ValueError(f"There is no size {unknown[0]!r}; choose from {', '.join(SIZES)}.")
    chosen = hardware.pick_device(device, "--device")
    compilation.check(bool(compiled), chosen, "--compile")
    report = Report(hardware.describe(chosen, precision).rpartition(", ")[0] + f", PyTorch {torch.__version__}")
    return Ladder(params, chosen, budget, say, report, begin).climb(sizes, precision, compiled)


def write(report: Report, folder: Path) -> None:
    """Write results.json, table.md and three figures into `folder`; training figures are for the fastest precision."""
    rows = [row | {"mfu": report.mfu(Training(**row))} for row in map(asdict, report.training) if not row["problem"]]
    fastest = max(report.peaks, key=lambda name: report.peaks[name])
    eager = [row for row in rows if not row["compiled"] and row["precision"] == fastest]
    write_json(folder / "results.json", report.to_json())
    write_text(folder / "table.md", "\n".join(table(report)) + "\n")
    figures.training_speed(folder / "benchmark_training.png", eager)
    figures.memory_forecast(folder / "benchmark_memory.png", eager)
    figures.decoding_speed(folder / "benchmark_decoding.png", [asdict(row) for row in report.decoding])
