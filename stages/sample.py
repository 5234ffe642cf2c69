"""Sample from the model: every prompt, and a grid of temperature and top-p, with sample metrics → data/samples."""

import sys

from stages import run
from tinygpt.checkpoints import base_model
from tinygpt.checkpoints.model_folder import hashes, load
from tinygpt.config import Params
from tinygpt.console import progress
from tinygpt.data.corpus import read_rows
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json
from tinygpt.generation import samples
from tinygpt.generation.cpu.decoder import is_ready, prepare
from tinygpt.generation.generate import for_terminal
from tinygpt.model import hardware
from tinygpt.plots import curves


def main(params: Params, paths: Paths) -> None:
    section, show = params.sample, params.runtime.progress
    hardware.make_deterministic()
    model, tokenizer = load(paths.model, hardware.pick_device(params.train.device))
    device = next(model.parameters()).device
    if not is_ready(device):
        print("compiling the decoder, once on this machine: some ten seconds", flush=True)
        prepare()
    traced: samples.Record = {**hashes(paths.model)}
    records = []
    with progress(samples.count(section), "sample", "sampling", show) as bar:
        for sample in samples.collect(model, tokenizer, section, params.seed, traced):
            records.append(sample)
            bar.update()
    base = base_model.base_of(paths.model, model.config)
    before = (
        list(samples.continue_prompts(base[0].to(device), tokenizer, section, params.seed, base[1])) if base else []
    )
    held_out = []
    if has_text(paths, traced["text"]):
        if section.grid.temperature and section.grid.top_p:  # only the grid is compared with it
            held_out = samples.held_out_records(model, tokenizer, section, read_rows(paths.text("validation")))
        size = read_json(paths.baselines)["train_bytes"]
        with progress(size, "B", "looking for copies", show) as bar:
            samples.add_overlap([*records, *before, *held_out], read_rows(paths.text("train")), bar.update)
    metrics = samples.summary(records, held_out)
    with writing(paths.samples) as folder:
        samples.write(folder, records, metrics, before)
        curves.temperatures(folder / "figures/temperatures.png", metrics["grid"], metrics["held_out"])
    first = for_terminal(samples.opening(records[0]["text"]), sys.stdout)
    print(f"{len(records)} samples in {paths.samples / 'samples.md'}; the first:\n\n{first}")


def has_text(paths: Paths, text: dict[str, str]) -> bool:
    """Whether data/corpus is the text that the model was trained on; prints a note if not."""
    found = all(paths.text(split).is_file() and sha256(paths.text(split)) == text[split] for split in text)
    if not found:
        print(
            f"The training text of this model is not in {paths.corpus}, so copies from it and the metrics of held-out "
            "text are left out. `dvc checkout data/corpus` restores it from the cache."
        )
    return found


if __name__ == "__main__":
    run(main)
