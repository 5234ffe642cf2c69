"""The samples of a report: those of each prompt, and the grid over temperature and top-p."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.experiments.artifacts import Outputs
from tinygpt.generation.samples import format_number, grid_table
from tinygpt.report import charts


@dataclass(frozen=True)
class Sample:
    """A sample with its metrics as text; empty without metrics."""

    prompt: str
    completion: str
    metrics: list[str]
    copied: str  # its longest passage that also occurs in the training text


@dataclass(frozen=True)
class Grid:
    """The metrics of each temperature and top-p, with one sample each."""

    name: str  # of the run
    head: list[str]
    rows: list[tuple[str, list[str]]]  # temperature, its cells
    figure: charts.Figure
    samples: list[tuple[tuple[float, float], Sample]]  # (temperature, top-p), sample


def by_prompt(runs: Sequence[Outputs]) -> dict[str, list[list[Sample]]]:
    """Prompt → the samples of each run, without those of the grid."""
    plain = [[sample for sample in each.samples if "grid" not in sample] for each in runs]
    prompts = dict.fromkeys(sample["prompt"] for samples in plain for sample in samples)
    return {p: [[_sample(s) for s in samples if s["prompt"] == p] for samples in plain] for p in prompts}


def grids(runs: Sequence[Outputs], names: Sequence[str]) -> list[Grid]:
    """The grids of the runs that have one."""
    return [_grid(each, name) for each, name in zip(runs, names, strict=True) if each.sample_metrics.get("grid")]


def _grid(outputs: Outputs, name: str) -> Grid:
    settings = [(sample["settings"], sample) for sample in reversed(outputs.samples) if "grid" in sample]
    first = {(values["temperature"], values["top_p"]): _sample(sample) for values, sample in settings}
    return Grid(name, *grid_table(outputs.sample_metrics), charts.temperatures(outputs, name), sorted(first.items()))


def _sample(sample: dict[str, Any]) -> Sample:
    metrics = sample.get("metrics")
    if metrics is None:
        return Sample(sample["prompt"], sample["completion"], [], "")
    words = [
        f"seed {sample['seed']}",
        f"{format_number(metrics.get('bits_per_byte'), '.2f')} bits per byte",
        "distinct-1/2/3 " + " / ".join(format_number(metrics.get(f"distinct_{n}"), ".2f") for n in (1, 2, 3)),
    ]
    if "longest_copy" in metrics:
        words.append(f"{format_number(metrics['known_words'], '.0%')} of its words known")
        words.append(f"longest copy {metrics['longest_copy']} characters")
    return Sample(sample["prompt"], sample["completion"], words, " ".join(metrics.get("copied", "").split()))
