"""Evaluate the model on the whole held-out text, compare it with the baselines, draw figures → data/evaluation."""

import copy

from stages import run
from tinygpt.checkpoints import base_model
from tinygpt.checkpoints.model_folder import load
from tinygpt.config import Params
from tinygpt.console import counted, progress
from tinygpt.data.dataset import evaluation_windows, open_tokens
from tinygpt.evaluation import before_after
from tinygpt.evaluation.history import append
from tinygpt.evaluation.metrics import Evaluation, evaluate, metrics, verdict
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
    base = base_model.base_of(paths.model, model.config.context_length)
    tokens = open_tokens(paths.ids("validation"))
    baselines = read_json(paths.baselines)
    texts = {"its_text": (tokens, baselines["validation_bytes"])}
    if section.base_text is not None and base:  # before the evaluation, in case it is missing
        texts["base_text"] = before_after.base_text(section.base_text, tokenizer)
    elif section.base_text is not None:
        print("evaluate.base_text is ignored: it needs train.init_from, and this model was trained from scratch")

    def evaluated(model: GPT, name: str) -> Evaluation:
        windows = evaluation_windows(tokens, model.config.context_length, section.batch_size)
        with progress(len(tokens), "token", name, show) as bar:
            return evaluate(model, counted(windows, lambda batch: bar.update(batch[1].numel())), tokenizer, cast)

    result = evaluated(model, "evaluating")
    numbers = metrics(result, baselines)
    if section.weights == "int8":
        int8 = metrics(evaluated(convert(copy.deepcopy(model), "int8"), "with int8 weights"), baselines)
        numbers["int8"] = {name: int8[name] for name in ("loss", "bits_per_byte")}
    if base:
        known = {"its_text": numbers["bits_per_byte"]}
        with progress(len(texts), "text", "before and after", show) as bar:
            numbers["fine_tuning"] = before_after.compare(
                base[0].to(device), model, counted(texts.items(), lambda _: bar.update()), known,
                tokenizer, section.batch_size, cast,
            )  # fmt: skip
    write_json(paths.evaluation / "metrics.json", numbers)
    with progress(len(VIEWS), "view", "drawing", show) as bar:
        subject = held_out(model, tokenizer, tokens, result.by_position)
        draw(paths, numbers, params.train.gradient_clip, subject, bar.update)
    print(verdict(numbers, append(numbers)))
    if "int8" in numbers:
        bits = numbers["int8"]["bits_per_byte"]
        print(f"int8 weights: {bits:.4f} bits per byte, {bits - numbers['bits_per_byte']:+.4f} compared with fp32.")
    if base:
        print(before_after.verdict(numbers["fine_tuning"]))


if __name__ == "__main__":
    run(main)
