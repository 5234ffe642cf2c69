"""Save and load the folder of a trained model: `save_model(folder, …)`, `model, tokenizer = load(folder)`.

It contains config.json, model.safetensors, the tokenizer, lineage.json, and SHA256SUMS of them, under transformers'
names if the model has a counterpart there. Everything is JSON or safetensors, so loading cannot execute code. A run in
progress is stored elsewhere (training/run_folder.py).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinygpt.checkpoints import hf_model, hf_names
from tinygpt.checkpoints.locate import is_ours
from tinygpt.checkpoints.source import Source, build
from tinygpt.checkpoints.tensors import read_header, write_tensors
from tinygpt.config import Params
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import SUMS, digest, read_sums, seal, sha256, verify
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, write_json
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.model.quantization import WeightType, convert
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import END
from tinygpt.tokenizer.folder import load as load_tokenizer

WEIGHTS = "model.safetensors"
CHANGES = "lora.safetensors"
TRACKED = ("seed", "model", "train")  # the parameters that a model's weights depend on


def save_model(
    folder: Path,
    config: GPTConfig,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    lineage: dict[str, Any],
    changes: dict[str, Tensor] | None = None,
) -> None:
    """Write a model folder atomically.

    weights: parameter name → float32 of the parameter's shape, for a model of this configuration. changes: the LoRA
    matrices (training/lora.py) already added to `weights`, for `tinygpt export peft`.
    """
    with writing(folder) as partial:
        partial.mkdir()
        write_json(partial / "config.json", hf_names.to_json(config, tokenizer.end_of_text))
        end = tokenizer.end_of_text
        token_ids = {
            "bos_token_id": end,
            "eos_token_id": [end, tokenizer.role_token(END)] if tokenizer.has_roles else end,
        }
        write_json(partial / "generation_config.json", token_ids)
        save_weights(partial / WEIGHTS, weights, config)
        if changes:
            write_tensors(partial / CHANGES, {name: changes[name].contiguous() for name in sorted(changes)})
        tokenizer.save(partial)
        write_json(partial / "lineage.json", lineage)
        seal(partial)


def save_weights(path: Path, weights: dict[str, Tensor], config: GPTConfig) -> None:
    """Write weights as a safetensors file, under the names of the model's family.

    weights: parameter name → float32 of the parameter's shape, as in `GPT(config).named_parameters()`.
    """
    named = {name: weight.contiguous() for name, weight in hf_names.export_weights(weights, config).items()}
    with writing(path) as partial:
        write_tensors(partial, named, {"format": "pt"})


def load(folder: Path | str, device: torch.device | str = "cpu", weights: WeightType = "fp32") -> tuple[GPT, Tokenizer]:
    """Load a model folder: (the model in eval mode on `device`, its tokenizer). int8 weights: see quantization.py.

    Raises FileNotFoundError if there is none, ValueError if it is damaged: every file is checked against SHA256SUMS,
    and every tensor's name, shape and dtype against config.json, before memory is allocated. Without SHA256SUMS only
    the tensors are checked; without lineage.json as well, the folder is read as another program's (hf_model.py).
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"There is no model in {folder}: config.json is missing. Run `dvc repro train`.")
    model, tokenizer = build(folder, _read(folder) if is_ours(folder) else hf_model.read(folder))
    return convert(model, weights).to(device), tokenizer


def _read(folder: Path) -> Source:
    """The contents of a folder written by TinyGPT, checked against its SHA256SUMS."""
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"There is no model in {folder}: {WEIGHTS} is missing. Run `dvc repro train`.")
    if (folder / SUMS).exists():
        verify(folder)
    values, found = read_json(folder / "config.json"), read_header(folder / WEIGHTS)
    try:
        config = hf_names.from_json(values)
    except (ValueError, TypeError, ArithmeticError) as problem:
        raise ValueError(f"{folder} is damaged: {problem}") from problem
    return Source(config, [folder / WEIGHTS], found, ("F32",), lambda: load_tokenizer(folder))


def lineage(params: Params, paths: Paths) -> dict[str, Any]:
    """The content of lineage.json: hashes of text, tokenizer and parameters, and the TRACKED parameters themselves."""
    tracked = {name: params.model_dump()[name] for name in TRACKED}
    return read_json(paths.tokens / "lineage.json") | {"params": digest(tracked), **tracked}


def hashes(folder: Path, weights: WeightType = "fp32") -> dict[str, Any]:
    """The hashes of a model's weights, tokenizer, training text and parameters (from lineage.json).

    For a folder of another program, only those of its weights and tokenizer. The type that `load` gave the weights is
    added if it is not fp32. Raises ValueError if lineage.json is incomplete.
    """
    loaded_as = {} if weights == "fp32" else {"weights": weights}
    if not (folder / "lineage.json").is_file():
        sums = [sha256(file) for file in hf_model.weight_files(folder)]
        known = {"model": sums[0] if len(sums) == 1 else digest(sums)}
        return known | {"tokenizer": sha256(folder / "tokenizer.json"), "text": {}, "params": ""} | loaded_as
    lineage = read_json(folder / "lineage.json")
    names = ("tokenizer", "text", "params")
    if not isinstance(lineage, dict) or not lineage.keys() >= {*names}:
        raise ValueError(f"{folder} is damaged: its lineage.json does not name {', '.join(names)}.")
    model = read_sums(folder)[WEIGHTS] if (folder / SUMS).is_file() else sha256(folder / WEIGHTS)
    return {"model": model, **{name: lineage[name] for name in names}, **loaded_as}
