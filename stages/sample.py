"""Let the model write: every prompt continued, and a grid of temperature and top-p → data/samples."""

import json
import sys

from stages import progress, run
from tinygpt import hardware
from tinygpt.checkpoint import hashes, load
from tinygpt.config import Params
from tinygpt.files import Paths, write_text, writing
from tinygpt.generation import for_terminal
from tinygpt.samples import as_markdown, collect

LINES = 16


def main(params: Params, paths: Paths) -> None:
    section = params.sample
    hardware.make_deterministic()
    model, tokenizer = load(paths.model, hardware.pick_device(params.train.device))
    records = []
    count = len(section.prompts) * section.num_samples + len(section.grid.temperature) * len(section.grid.top_p)
    with progress(count, "sample", "sampling", params.runtime.progress) as bar:
        for sample in collect(model, tokenizer, section, params.seed, hashes(paths.model)):
            records.append(sample)
            bar.update()
    with writing(paths.samples) as folder:
        folder.mkdir()
        write_text(
            folder / "samples.jsonl", "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in records)
        )
        write_text(folder / "samples.md", as_markdown(records))
    print(f"{len(records)} samples in {paths.samples / 'samples.md'}; the first:\n\n{beginning(records[0]['text'])}")


def beginning(text: str) -> str:
    """As much of a text as leaves a screen of 24 lines room for what was said before."""
    lines = text.splitlines()
    return for_terminal("\n".join(lines[:LINES] + ["…"] * (len(lines) > LINES)), sys.stdout)


if __name__ == "__main__":
    run(main)
