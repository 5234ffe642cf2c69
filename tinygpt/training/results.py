"""The results of a run: curves and metrics in data/training, and timings outside of DVC.

`clock = Clock(file, step)`; `clock.note(step)` during training; `clock.keep(curve)` at the end stores the seconds in
.tinygpt/times under the MD5 of the run's train.tsv, which dvc.lock contains, too. `seconds_of_curve(md5)` finds them
for runs on this machine. So no output contains a timing.
"""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tinygpt.config import Train
from tinygpt.files.paths import hidden
from tinygpt.files.text import write_json, write_table, write_text
from tinygpt.model.gpt import GPTConfig, count_parameters, training_flops_per_token
from tinygpt.training import lora

if TYPE_CHECKING:
    from tinygpt.training.state import State


class History(Protocol):
    """The history of a run, from either training loop."""

    train_rows: list[dict[str, float]]  # one a step
    validation_rows: list[dict[str, float]]  # one a validation
    best_loss: float  # nats per token
    best_step: int


def metrics(history: History, settings: Train, config: GPTConfig, parameters: int) -> dict[str, float]:
    """The content of data/training/metrics.json; without timings, so that the same run gives the same bytes.

    Losses are in nats per token; `tokens` and `flops` are those of all steps so far. IndexError before the first
    validation.
    """
    steps, last = len(history.train_rows), [row["loss"] for row in history.train_rows[-50:]]
    tokens = steps * settings.batch_size * settings.accumulation * config.context_length
    return {
        "step": steps,
        "train_loss": sum(last) / max(1, len(last)),  # mean of the last 50 steps
        "validation_loss": history.validation_rows[-1]["loss"],
        "best_validation_loss": history.best_loss,
        "best_step": history.best_step,
        "parameters": parameters,
        "tokens": tokens,
        "flops": tokens * training_flops_per_token(config),
    }


def write_curves(folder: Path, state: "State", settings: Train) -> None:
    """Write train.tsv, validation.tsv, health.tsv and metrics.json, each atomically; during the run for live plots."""
    curves = {"train": state.train_rows, "validation": state.validation_rows, "health": state.health_rows}
    for name, rows in curves.items():
        write_table(folder / f"{name}.tsv", rows)
    parameters = count_parameters(state.model) - lora.added(state.model)  # of the merged model, which is saved
    write_json(folder / "metrics.json", metrics(state, settings, state.model.config, parameters))


class Clock:
    """Seconds since training began, by step, kept in `file` for when the run is resumed."""

    def __init__(self, file: Path, step: int) -> None:
        self.file = file
        self.seconds = {earlier: value for earlier, value in _read_seconds(file).items() if earlier <= step}
        self._begin = time.perf_counter() - max(self.seconds.values(), default=0.0)

    def note(self, step: int) -> None:
        """Record the time after `step` steps."""
        self.seconds[step] = time.perf_counter() - self._begin
        write_text(self.file, _seconds_table(self.seconds))

    def keep(self, curve: Path) -> None:
        """Store the seconds permanently, under the MD5 of their curve."""
        md5 = hashlib.md5(curve.read_bytes(), usedforsecurity=False).hexdigest()
        write_text(_seconds_file(md5), _seconds_table(self.seconds))


def seconds_of_curve(md5: str) -> dict[int, float]:
    """Step → seconds of the run whose train.tsv has this MD5; empty if it did not run on this machine."""
    return _read_seconds(_seconds_file(md5))


def _seconds_file(md5: str) -> Path:
    return hidden("times") / f"{md5}.tsv"


def _read_seconds(file: Path) -> dict[int, float]:
    if not file.is_file():
        return {}
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:])
    return {int(step): float(seconds) for step, seconds in rows}


def _seconds_table(seconds: dict[int, float]) -> str:
    return "step\tseconds\n" + "".join(f"{step}\t{value:.3f}\n" for step, value in sorted(seconds.items()))
