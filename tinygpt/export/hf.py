"""Export a model folder with a model card, ready to publish: `write(paths, model folder, target)`.

The folder is transformers' own already, so it is copied as it is, and a model card (README.md, as the Hugging Face hub
shows it) comes beside it: how to use the model, how good it is, one of its samples, and the hashes and parameters it
comes from. Numbers and sample are taken from the pipeline at `paths`, where its dvc.lock and the sample itself say that
they are of this very model. `write_adapter` gives what LoRA learned to peft. Left out: a licence, which only the owner
can give, and the upload.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.model_folder import CHANGES, hashes, load
from tinygpt.checkpoints.tensors import write_tensors
from tinygpt.experiments import lineage
from tinygpt.export.peft import to_peft
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import seal
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, write_json, write_text
from tinygpt.generation.samples import fenced
from tinygpt.model.gpt import GPT, count_parameters

USE = """\
    from transformers import pipeline

    write = pipeline("text-generation", "path/to/this/folder")
    print(write("Once", max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)[0]["generated_text"])
"""


def write(paths: Paths, folder: Path, target: Path) -> list[str]:
    """Write `folder`, a model of the pipeline at `paths`, and its card to `target`; what the card lacks, as sentences.

    Raises ValueError in a sentence where the folder is damaged, where transformers has no such model, or where there is
    something at `target` already.
    """
    check_free(target)
    check_ours(folder)
    model, _ = load(folder)  # which checks every byte of it
    hf_names.check_counterpart(model.config, folder, "transformers")
    numbers, sample = lineage.evaluation_of(folder, paths), lineage.sample_of(folder, paths)
    with writing(target) as partial:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(CHANGES))  # they are in the weights
        write_text(partial / "README.md", "\n".join(card(folder, model, numbers, sample)) + "\n")
        seal(partial)
    missing = ["the score (`dvc repro evaluate`)"] * (numbers is None) + ["a sample (`dvc repro sample`)"] * (
        sample is None
    )
    return [f"The card lacks {what}: {paths.folder} holds none of this model." for what in missing]


def write_adapter(folder: Path, target: Path) -> None:
    """Write what LoRA learned in `folder` as a folder that peft opens on the base model.

    Raises ValueError where the folder is damaged, holds no LoRA or has no counterpart in transformers, and where
    `target` exists already.
    """
    check_free(target)
    model, _ = load(folder)
    hf_names.check_counterpart(model.config, folder, "transformers")
    if not (folder / CHANGES).is_file():
        raise ValueError(f"{folder} was not made by LoRA; train with train.lora_rank above 0, or use `export hf`.")
    known = read_json(folder / "lineage.json")
    rank, alpha = known["train"]["lora_rank"], known["train"]["lora_alpha"]
    tensors, said = to_peft(load_file(folder / CHANGES), model.config, rank, alpha)
    name, _, commit = known["base"]["init_from"].partition("@")
    with writing(target) as partial:
        partial.mkdir()
        write_tensors(partial / "adapter_model.safetensors", tensors, {"format": "pt"})
        base = {"base_model_name_or_path": name} | ({"revision": commit} if commit else {})
        write_json(partial / "adapter_config.json", said | base)


def check_ours(folder: Path) -> None:
    """ValueError where a model was not trained here: its names, precision and tokenizer may be any."""
    if (folder / "config.json").is_file() and not (folder / "lineage.json").is_file():
        raise ValueError(
            f"{folder} was not trained by TinyGPT (it has no lineage.json), and is a transformers folder as it is. "
            "For a GGUF file of it use llama.cpp's own converter."
        )


def check_free(target: Path) -> None:
    if target.exists():
        raise ValueError(f"There is something at {target} already, and it stays. Name a place that is free.")


def card(folder: Path, model: GPT, numbers: dict[str, Any] | None, sample: dict[str, Any] | None) -> Iterator[str]:
    """The lines of README.md."""
    shape, kind = model.config, hf_names.family(model.config)
    head = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["tinygpt", kind]}
    yield from ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""]
    yield f"# A GPT of {count_parameters(model) / 1e6:.2f} million parameters"
    yield ""
    yield f"Trained with TinyGPT, in {kind}'s shape: {shape.n_layer} blocks, width {shape.n_embd}, a context of"
    yield f"{shape.context_length} tokens, a vocabulary of {shape.vocab_size}."
    yield "A base model: it continues a text, and answers no questions."
    yield from ["", "## Use", "", USE]
    yield "A literal `<|endoftext|>` in a prompt is plain text to TinyGPT, and the end of a document to transformers."
    if numbers is not None:
        yield from [
            "",
            "## How good it is",
            "",
            "Bits per byte of held-out text, beside simple models of the same text; less is better.",
            "",
        ]
        marks = numbers["baselines"] | {"**this model**": numbers["bits_per_byte"]}
        yield from ["| | bits per byte |", "|---|---|"]
        yield from (f"| {name} | {value:.3f} |" for name, value in sorted(marks.items(), key=lambda mark: -mark[1]))
    if sample is not None:
        settings = ", ".join(f"{name} {value:g}" for name, value in sample["settings"].items())
        yield from [
            "",
            "## What it writes",
            "",
            f"Seed {sample['seed']}, {settings}; the text begins with its prompt.",
            "",
        ]
        yield from fenced(sample["text"])
    yield from ["", "## Where it comes from", "", "SHA-256 of what made it; `SHA256SUMS` covers this folder.", ""]
    made, known = hashes(folder), read_json(folder / "lineage.json")
    flat = {k: v for k, v in made.items() if isinstance(v, str)} | {f"{k} text": v for k, v in made["text"].items()}
    yield from (f"- {name}: `{value}`" for name, value in flat.items())
    parameters = {name: known[name] for name in ("seed", "model", "train") if name in known}
    if parameters:
        yield from ["", *fenced(yaml.safe_dump(parameters, sort_keys=False), "yaml")]
