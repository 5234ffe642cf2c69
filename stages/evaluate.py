"""Measure the model on the whole held-out text, beside the yardsticks, and look inside → data/evaluation."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stages import run
from tinygpt.checkpoints import base_model
from tinygpt.checkpoints.model_folder import load
from tinygpt.config import Params, Train
from tinygpt.console import progress
from tinygpt.data.dataset import Batch, evaluation_windows, open_tokens
from tinygpt.evaluation import before_after
from tinygpt.evaluation.metrics import evaluate, metrics, verdict
from tinygpt.files.atomic import writing
from tinygpt.files.paths import Paths, hidden
from tinygpt.files.text import read_json, read_table, write_json, write_table, write_text
from tinygpt.inspection import figures
from tinygpt.inspection.activations import EXAMPLE, VIEWS
from tinygpt.inspection.text import Subject, held_out
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT
from tinygpt.plots import curves
from tinygpt.tokenizer.base import Tokenizer


def main(params: Params, paths: Paths) -> None:
    device = hardware.pick_device(params.train.device)
    precision = hardware.pick_precision(params.train.precision, device)
    hardware.make_deterministic()
    model, tokenizer = load(paths.model, device)
    base = base_model.base_of(paths.model, model.config.context_length)
    old = old_text(params.evaluate.base_text, base is not None, tokenizer)
    tokens = open_tokens(paths.ids("validation"))
    windows = evaluation_windows(tokens, model.config.context_length, params.evaluate.batch_size)
    with progress(len(tokens), "token", "evaluating", params.runtime.progress) as bar:
        result = evaluate(model, counted(windows, bar.update), tokenizer, hardware.autocast(device, precision))
    numbers = metrics(result, read_json(paths.yardsticks))
    if base:
        texts = {"its_text": (tokens, numbers["bytes"]), **old}
        known = {"its_text": numbers["bits_per_byte"]}
        numbers["fine_tuning"] = before_and_after(base[0].to(device), model, texts, known, tokenizer, params, precision)
    write_json(paths.evaluation / "metrics.json", numbers)
    with progress(len(VIEWS), "view", "drawing", params.runtime.progress) as bar:
        draw(paths, numbers, params.train, held_out(model, tokenizer, tokens, result.by_position), bar.update)
    print(verdict(numbers, remember(numbers)))
    if base:
        print(before_after.verdict(numbers["fine_tuning"]))


def old_text(corpus: str | None, fine_tuned: bool, tokenizer: Tokenizer) -> dict[str, before_after.Text]:
    """The text to see what was forgotten of, if there is one; says so where it is asked for in vain."""
    if corpus is not None and not fine_tuned:
        print("evaluate.base_text counts only with train.init_from: this model was trained from nothing")
    return {"base_text": before_after.base_text(corpus, tokenizer)} if corpus is not None and fine_tuned else {}


def before_and_after(
    base: GPT,
    model: GPT,
    texts: dict[str, before_after.Text],
    known: dict[str, float],
    tokenizer: Tokenizer,
    params: Params,
    precision: str,
) -> dict[str, dict[str, float]]:
    """Bits per byte of each text, of the base and of what it became; `known` are those of the latter."""
    cast, size = hardware.autocast(next(model.parameters()).device, precision), params.evaluate.batch_size
    found = {}
    with progress(len(texts), "text", "before and after", params.runtime.progress) as bar:
        for name, text in texts.items():
            found[name] = {"before": before_after.bits_per_byte(base, text, tokenizer, size, cast)}
            found[name]["after"] = (
                known[name] if name in known else before_after.bits_per_byte(model, text, tokenizer, size, cast)
            )
            bar.update()
    return found


def counted(windows: Iterable[Batch], advance: Callable[[int], object]) -> Iterator[Batch]:
    """The windows; `advance` hears the tokens of each batch once the next is asked for."""
    for inputs, targets in windows:
        yield inputs, targets
        advance(targets.numel())


def draw(
    paths: Paths, numbers: dict[str, Any], settings: Train, subject: Subject, advance: Callable[[int], object]
) -> None:
    """The figures: of the run, and of the model's inside; and two of them as tables, for `dvc plots`."""
    shape, marks, size = subject.model.config, numbers["yardsticks"], numbers["bytes"] / numbers["tokens"]
    train, validation = (read_table(paths.training / f"{split}.tsv") for split in ("train", "validation"))
    trained = read_json(paths.training / "metrics.json")
    learned = curves.by_compute(validation, trained["flops"] / trained["step"], size)
    by_position = [] if subject.by_position is None else enumerate(subject.by_position, start=1)
    write_table(paths.evaluation / "by_position.tsv", [{"position": x, "loss": y} for x, y in by_position])
    write_table(paths.evaluation / "by_compute.tsv", [{"tflop": x, "bits_per_byte": y} for x, y in learned])
    with writing(paths.evaluation / "figures") as folder:
        folder.mkdir()
        curves.loss_curves(folder / "loss.png", train, validation, curves.nats_per_token(marks, size))
        curves.learning_rate(folder / "learning_rate.png", train)
        curves.gradient_norm(folder / "gradient_norm.png", train, settings.gradient_clip)
        curves.learning(folder / "by_compute.png", {"": learned}, marks, *curves.COMPUTE)
        bits, error = numbers["bits_per_byte"], numbers["bits_per_byte_standard_error"]
        curves.yardstick_bars(folder / "yardsticks.png", {"this model": (bits, error)}, marks)
        if "fine_tuning" in numbers:
            curves.before_and_after(folder / "fine_tuning.png", numbers["fine_tuning"])
        figures.draw(folder, VIEWS, subject, EXAMPLE, range(shape.n_layer), range(shape.n_head), advance)


def remember(numbers: dict[str, Any]) -> dict[str, Any] | None:
    """Add this evaluation to the untracked log; hand back the one before it, if there is one."""
    log = hidden("evaluations.jsonl")
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    write_text(log, "".join(line + "\n" for line in [*lines[-999:], json.dumps(numbers)]))
    before: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
    return before


if __name__ == "__main__":
    run(main)
