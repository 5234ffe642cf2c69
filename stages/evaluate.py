"""Evaluate the model on the whole held-out text, compare it with the baselines, draw figures → data/evaluation."""

import copy
from functools import partial

from stages import run
from tinygpt.checkpoints import base_model
from tinygpt.checkpoints.model_folder import load
from tinygpt.config import Params
from tinygpt.console import counted, progress
from tinygpt.data.dataset import open_tokens
from tinygpt.data.packing import open_examples
from tinygpt.evaluation import before_after
from tinygpt.evaluation.before_after import Text
from tinygpt.evaluation.history import append
from tinygpt.evaluation.metrics import Evaluation, evaluate, metrics, verdict
from tinygpt.evaluation.tasks import suite, table
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, write_json
from tinygpt.inspection.activations import VIEWS
from tinygpt.inspection.run_figures import draw
from tinygpt.inspection.text import held_out
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT
from tinygpt.model.quantization import convert


def main(params: Params, paths: Paths) -> None:
    section, show = params.evaluate, params.runtime.progress
    device = hardware.pick_device(params.train.device)
    cast = hardware.autocast(device, hardware.pick_precision(params.train.precision, device))
    hardware.make_deterministic()
    model, tokenizer = load(paths.model, device)
    base, context = base_model.base_of(paths.model, model.config), model.config.context_length
    examples = open_examples(paths.ids("validation"), paths.mask("validation"), context, tokenizer)
    baselines, chat = read_json(paths.baselines), examples.separator is not None
    text = Text(
        partial(examples.evaluation, section.batch_size), None if chat else baselines["validation_bytes"],
        examples.separator,
    )  # fmt: skip
    texts = {"its_text": text}
    if section.base_text is not None and base:  # before the evaluation, in case it is missing
        texts["base_text"] = before_after.base_text(section.base_text, tokenizer, context, section.batch_size)
    elif section.base_text is not None:
        print("evaluate.base_text is ignored: it needs train.init_from, and this model was trained from scratch")

    def evaluated(model: GPT, name: str) -> Evaluation:
        with progress(examples.tokens, "token", name, show) as bar:
            windows = counted(text.windows(), lambda batch: bar.update(batch[1].numel()))
            return evaluate(model, windows, tokenizer, cast, text.separator)

    result = evaluated(model, "evaluating")
    numbers = metrics(result, baselines, chat)
    if section.weights == "int8":
        int8 = metrics(evaluated(convert(copy.deepcopy(model), "int8"), "with int8 weights"), baselines, chat)
        numbers["int8"] = {name: int8[name] for name in ("loss", "bits_per_byte")}
    if base:
        known = {"its_text": numbers["bits_per_byte"]}
        with progress(len(texts), "text", "before and after", show) as bar:
            numbers["fine_tuning"] = before_after.compare(
                base[0].to(device), model, counted(texts.items(), lambda _: bar.update()), known, tokenizer, cast,
            )  # fmt: skip
    if section.tasks or section.next_utterance:
        subject = suite.Subject(model, tokenizer, base and base[0], paths.text("train"), paths.text("validation"))
        with progress(None, "answer", "scoring tasks", show) as bar:
            numbers["tasks"] = suite.measure(subject, section, bar.update)
    write_json(paths.evaluation / "metrics.json", numbers)
    with progress(len(VIEWS), "view", "drawing", show) as bar:
        by_position = None if chat else result.by_position  # conversations share windows, so it would not be context
        shown = held_out(model, tokenizer, open_tokens(paths.ids("validation")), by_position)
        draw(paths, numbers, params.train.gradient_clip, shown, bar.update)
    print(verdict(numbers, append(numbers)))
    if "int8" in numbers:
        bits = numbers["int8"]["bits_per_byte"]
        print(f"int8 weights: {bits:.4f} bits per byte, {bits - numbers['bits_per_byte']:+.4f} compared with fp32.")
    if base:
        print(before_after.verdict(numbers["fine_tuning"]))
    if numbers.get("tasks"):
        print(*table.table(numbers["tasks"]), sep="\n")


if __name__ == "__main__":
    run(main)
