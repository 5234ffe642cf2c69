"""Export a model folder with a model card, ready to publish: `write(paths, model folder, target)`.

A model folder already has transformers' format, so it is copied unchanged. The model card (README.md, shown by the
Hugging Face hub) adds usage, metrics, a sample, and the hashes and parameters of the model. Metrics and sample come
from the pipeline at `paths`, if dvc.lock and the sample's hashes match the model. `write_adapter` exports LoRA weights
for peft. Left out: a licence, which the owner must choose, and the upload.
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
from tinygpt.export.peft import rows_to_peft, to_peft
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import seal
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, write_json, write_text
from tinygpt.generation.samples import fenced
from tinygpt.model.gpt import GPT, count_parameters

CHAT = """\
    from transformers import pipeline

    chat = pipeline("text-generation", "path/to/this/folder")
    messages = [{"role": "user", "content": "Who are you?"}]
    print(chat(messages, max_new_tokens=60)[0]["generated_text"][-1]["content"])
"""
USE = """\
    from transformers import pipeline

    write = pipeline("text-generation", "path/to/this/folder")
    print(write("Once", max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)[0]["generated_text"])
"""


def write(paths: Paths, folder: Path, target: Path) -> list[str]:
    """Write `folder`, a model of the pipeline at `paths`, and a card to `target`; returns sentences on missing parts.

    Raises ValueError if the folder is damaged, transformers has no such model, or `target` exists.
    """
    check_free(target)
    check_trained_here(folder)
    model, tokenizer = load(folder)  # also verifies SHA256SUMS
    hf_names.check_counterpart(model.config, folder, "transformers")
    chats = tokenizer.has_roles
    numbers, sample = lineage.evaluation_of(folder, paths), lineage.sample_of(folder, paths)
    with writing(target) as partial:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(CHANGES))  # already added to the weights
        write_text(partial / "README.md", "\n".join(card(folder, model, chats, numbers, sample)) + "\n")
        seal(partial)
    metrics = ["metrics (`dvc repro evaluate`)"] * (numbers is None)
    missing = metrics + ["a sample (`dvc repro sample`)"] * (sample is None)
    return [f"The card lacks {what}: there are none of this model in {paths.folder}." for what in missing]


def write_adapter(folder: Path, target: Path) -> None:
    """Write the LoRA weights of `folder` as an adapter folder, which peft applies to the base model.

    Raises ValueError if the folder is damaged, has no LoRA weights or no counterpart in transformers, or if `target`
    exists.
    """
    check_free(target)
    model, tokenizer = load(folder)
    hf_names.check_counterpart(model.config, folder, "transformers")
    if not (folder / CHANGES).is_file():
        raise ValueError(f"{folder} was not trained with LoRA; set train.lora_rank above 0, or use `export hf`.")
    known = read_json(folder / "lineage.json")
    rank, alpha = known["train"]["lora_rank"], known["train"]["lora_alpha"]
    tensors, adapter = to_peft(load_file(folder / CHANGES), model.config, rank, alpha)
    rows, trained = rows_to_peft(model, known["base"].get("new_tokens", []))
    name, _, commit = known["base"]["init_from"].partition("@")
    with writing(target) as partial:
        partial.mkdir()
        write_tensors(partial / "adapter_model.safetensors", tensors | rows, {"format": "pt"})
        base = {"base_model_name_or_path": name} | ({"revision": commit} if commit else {})
        write_json(partial / "adapter_config.json", adapter | trained | base)
        if tokenizer.has_roles:  # from its size peft's AutoPeftModelForCausalLM knows by how much the base grows
            tokenizer.save(partial)


def check_trained_here(folder: Path) -> None:
    """Raise ValueError if TinyGPT did not train a model, whose names, precision and tokenizer may then differ."""
    if (folder / "config.json").is_file() and not (folder / "lineage.json").is_file():
        raise ValueError(
            f"{folder} was not trained by TinyGPT (it has no lineage.json); it is already a transformers folder. "
            "For a GGUF file use llama.cpp's own converter."
        )


def check_free(target: Path) -> None:
    if target.exists():
        raise ValueError(f"{target} exists already and is not overwritten. Choose another path.")


def card(
    folder: Path, model: GPT, chats: bool, numbers: dict[str, Any] | None, sample: dict[str, Any] | None
) -> Iterator[str]:
    """The lines of README.md. chats: the model has a chat template."""
    shape, kind = model.config, hf_names.family(model.config)
    tags = ["tinygpt", kind, *["conversational"] * chats]
    head = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    yield from ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""]
    yield f"# A GPT of {count_parameters(model) / 1e6:.2f} million parameters"
    yield ""
    yield f"Trained with TinyGPT. Architecture: {kind}, {shape.n_layer} blocks, width {shape.n_embd}, a context of"
    yield f"{shape.context_length} tokens, a vocabulary of {shape.vocab_size}."
    if chats:
        yield "A chat model: it answers messages, in the form of its chat template."
    else:
        yield "A base model: it continues a text; it does not answer questions."
    yield from ["", "## Use", "", CHAT if chats else USE]
    yield "A literal `<|endoftext|>` in a prompt is plain text in TinyGPT, but the end of a document in transformers."
    if chats:
        yield "So are `<|system|>`, `<|user|>`, `<|assistant|>` and `<|end|>` in a message; transformers makes them"
        yield "role tokens, so remove them from what others write."
    if numbers is not None:
        yield from [
            "",
            "## Evaluation",
            "",
            f"Bits per byte of held-out {'answers' if chats else 'text'}; lower is better, simple baselines beside it.",
            "",
        ]
        scores = numbers["baselines"] | {"**this model**": numbers["bits_per_byte"]}
        yield from ["| | bits per byte |", "|---|---|"]
        yield from (f"| {name} | {value:.3f} |" for name, value in sorted(scores.items(), key=lambda item: -item[1]))
    if sample is not None:
        settings = ", ".join(f"{name} {value:g}" for name, value in sample["settings"].items())
        yield from [
            "",
            "## A sample",
            "",
            f"Seed {sample['seed']}, {settings}; the text begins with the {'messages' if chats else 'prompt'}.",
            "",
        ]
        yield from fenced(sample["text"])
    yield from ["", "## Lineage", "", "SHA-256 of the inputs; `SHA256SUMS` covers this folder.", ""]
    traced, known = hashes(folder), read_json(folder / "lineage.json")
    flat = {k: v for k, v in traced.items() if isinstance(v, str)} | {f"{k} text": v for k, v in traced["text"].items()}
    yield from (f"- {name}: `{value}`" for name, value in flat.items())
    parameters = {name: known[name] for name in ("seed", "model", "train") if name in known}
    if parameters:
        yield from ["", *fenced(yaml.safe_dump(parameters, sort_keys=False), "yaml")]
