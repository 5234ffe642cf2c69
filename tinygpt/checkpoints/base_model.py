"""Fine-tune from a trained model: `base, origin = open_base(name, tokenizer, params.model)`.

A base keeps its shape and its tokenizer; its context may be cut shorter. A model that was made from one names it in its
lineage, so that `base_of(folder)` finds it again. How training goes on from it is training/state.py's, LoRA is
training/lora.py's, and what was gained and forgotten is evaluation/before_after.py's.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinygpt.checkpoints import locate
from tinygpt.checkpoints.model_folder import hashes, load
from tinygpt.config import Model
from tinygpt.files.text import read_json
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer


def open_base(name: str, tokenizer: Tokenizer, section: Model) -> tuple[GPT, dict[str, Any]]:
    """The model called `name` in eval mode on the CPU, in float32, and the lineage that it leaves: name and hashes.

    Of `section` its dropout and its context length count. ValueError in a sentence where the tokenizer is another, or
    the model has less context than is asked for.
    """
    folder = locate.locate(name)
    model, own = load(folder)
    if own.to_json() != tokenizer.to_json():
        raise ValueError(
            f"data/tokenizer is not that of {name}, whose tokens mean something else. Set tokenize.from to {name}."
        )
    if section.context_length > model.config.context_length:
        raise ValueError(
            f"model.context_length is {section.context_length}, but {name} has room for {model.config.context_length} "
            f"tokens. Set it to {model.config.context_length} or less."
        )
    return shortened(model, section.context_length, section.dropout), {"init_from": name} | hashes(folder)


def shortened(model: GPT, context_length: int, dropout: float = 0.0) -> GPT:
    """The same model with a context of `context_length`, at most what it has; learned positions beyond are dropped."""
    shorter = GPT(replace(model.config, context_length=context_length, dropout=dropout))
    weights = model.state_dict()
    if model.position_embedding is not None:
        weights["position_embedding.weight"] = weights["position_embedding.weight"][:context_length]
    shorter.load_state_dict(weights)
    return shorter.eval()


def base_of(folder: Path, context_length: int) -> tuple[GPT, dict[str, Any]] | None:
    """The model that a model folder was made from, with as much context, and the hashes that trace it; or None.

    Raises ValueError where what lies there now is another model than it was.
    """
    lineage = read_json(folder / "lineage.json") if (folder / "lineage.json").is_file() else {}
    if "base" not in lineage:
        return None
    name = lineage["base"]["init_from"]
    at = locate.locate(name)
    traced = hashes(at)
    if traced["model"] != lineage["base"]["model"]:
        raise ValueError(
            f"{name} is no longer the model that {folder} was made from. Train again from what is there now: "
            "`dvc repro -f train`."
        )
    model, _ = load(at)
    return shortened(model, context_length), traced
