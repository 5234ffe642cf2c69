"""What a run leaves in data/training: its curves, a row a step or a validation, and its last numbers."""

from pathlib import Path

from tinygpt.config import Train
from tinygpt.files.text import write_json, write_table
from tinygpt.model.gpt import count_parameters, training_flops_per_token
from tinygpt.training import lora
from tinygpt.training.state import State


def metrics(state: State, settings: Train) -> dict[str, float]:
    """The run in numbers, for data/training/metrics.json; no timings, so that the same run gives the same bytes.

    Losses in nats per token; `tokens` and `flops` of all steps so far. IndexError before the first validation.
    """
    config = state.model.config
    tokens = state.step * settings.batch_size * settings.accumulation * config.context_length
    last = [row["loss"] for row in state.train_rows[-50:]]
    return {
        "step": state.step,
        "train_loss": sum(last) / max(1, len(last)),  # mean of the last 50 steps
        "validation_loss": state.validation_rows[-1]["loss"],
        "best_validation_loss": state.best_loss,
        "best_step": state.best_step,
        "parameters": count_parameters(state.model) - lora.added(state.model),  # of the model that is kept
        "tokens": tokens,
        "flops": tokens * training_flops_per_token(config),
    }


def write_curves(folder: Path, state: State, settings: Train) -> None:
    """Write train.tsv, validation.tsv, health.tsv and metrics.json, each whole: also during the run, for live plots."""
    curves = {"train": state.train_rows, "validation": state.validation_rows, "health": state.health_rows}
    for name, rows in curves.items():
        write_table(folder / f"{name}.tsv", rows)
    write_json(folder / "metrics.json", metrics(state, settings))
