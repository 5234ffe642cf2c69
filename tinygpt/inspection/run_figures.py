"""The figures of an evaluated run, and two of them as tables for `dvc plots`: `draw(paths, numbers, …)`."""

from collections.abc import Callable
from typing import Any

from tinygpt.evaluation.tasks.table import label
from tinygpt.files.atomic import writing
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, read_table, write_table, write_text
from tinygpt.inspection import figures
from tinygpt.inspection.activations import EXAMPLE, VIEWS
from tinygpt.inspection.text import Subject
from tinygpt.plots import curves


def draw(
    paths: Paths, numbers: dict[str, Any], gradient_clip: float, subject: Subject, advance: Callable[[int], object]
) -> None:
    """Write figures/, by_position.tsv and by_compute.tsv of data/evaluation.

    numbers: the result of evaluation.metrics.metrics. subject: the model on held-out text, with its loss by position.
    `advance` is called for each view of the model's internals.
    """
    baselines, size = numbers["baselines"], numbers["bytes"] / numbers["tokens"]
    train, validation = (read_table(paths.training / f"{split}.tsv") for split in ("train", "validation"))
    trained = read_json(paths.training / "metrics.json")
    by_compute = curves.by_compute(validation, trained["flops"] / trained["step"], size)
    if subject.by_position is None:
        write_text(paths.evaluation / "by_position.tsv", "position\tloss\n")
    else:
        by_position = [{"position": x, "loss": y} for x, y in enumerate(subject.by_position, start=1)]
        write_table(paths.evaluation / "by_position.tsv", by_position)
    write_table(paths.evaluation / "by_compute.tsv", [{"tflop": x, "bits_per_byte": y} for x, y in by_compute])
    with writing(paths.evaluation / "figures") as folder:
        folder.mkdir()
        curves.loss_curves(folder / "loss.png", train, validation, curves.nats_per_token(baselines, size))
        curves.learning_rate(folder / "learning_rate.png", train)
        curves.gradient_norm(folder / "gradient_norm.png", train, gradient_clip)
        curves.learning(folder / "by_compute.png", {"": by_compute}, baselines, *curves.COMPUTE)
        bits, error = numbers["bits_per_byte"], numbers["bits_per_byte_standard_error"]
        curves.baseline_bars(folder / "baselines.png", {"this model": (bits, error)}, baselines)
        if "fine_tuning" in numbers:
            curves.before_and_after(folder / "fine_tuning.png", numbers["fine_tuning"])
        if numbers.get("tasks"):
            curves.task_bars(folder / "tasks.png", {label(name): each for name, each in numbers["tasks"].items()})
        shape = subject.model.config
        figures.draw(folder, VIEWS, subject, EXAMPLE, range(shape.n_layer), range(shape.n_head), advance)
