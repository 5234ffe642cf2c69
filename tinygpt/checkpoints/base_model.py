"""Fine-tune from a trained model: `base, origin = open_base(name, tokenizer, params.model)`.

A base model keeps its shape and its tokenizer; its context may be shortened, and its vocabulary grow by role tokens. A
fine-tuned model's lineage names its base, so that `base_of(folder)` finds it again. Training from it:
training/state.py; LoRA: training/lora.py; the loss before and after: evaluation/before_after.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tinygpt.checkpoints import locate
from tinygpt.checkpoints.model_folder import hashes, load
from tinygpt.config import Model
from tinygpt.files.text import read_json
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.tokenizer.base import Tokenizer


def open_base(name: str, tokenizer: Tokenizer, section: Model) -> tuple[GPT, dict[str, Any]]:
    """The base model in eval mode on the CPU, in float32, and its lineage entry: name and hashes.

    Only `section`'s dropout and context length are used. If `tokenizer` has role tokens and the base's has none, the
    model grows by them. Raises ValueError if the tokenizer is another, or the model's context is shorter.
    """
    folder = locate.locate(name)
    model, base_tokenizer = load(folder)
    if tokenizer.to_json() not in (base_tokenizer.to_json(), base_tokenizer.with_roles().to_json()):
        raise ValueError(f"data/tokenizer differs from the tokenizer of {name}. Set tokenize.from to {name}.")
    if section.context_length > model.config.context_length:
        raise ValueError(
            f"model.context_length is {section.context_length}, but that of {name} is {model.config.context_length}. "
            f"Set it to {model.config.context_length} or less."
        )
    changed = resized(model, section.context_length, tokenizer.vocab_size, section.dropout)
    return changed, {"init_from": name} | hashes(folder)


def resized(model: GPT, context_length: int, vocab_size: int, dropout: float = 0.0) -> GPT:
    """The same model with a context of `context_length`, at most its own, and `vocab_size` tokens, at least its own.

    Learned positions beyond the context are dropped. The embeddings and logits of new tokens start at the mean of all
    others (Hewitt 2021), so that they are neither likely nor unlikely, and move the residual stream little.
    """
    changed = GPT(replace(model.config, context_length=context_length, vocab_size=vocab_size, dropout=dropout))
    weights = model.state_dict()
    if model.position_embedding is not None:
        weights["position_embedding.weight"] = weights["position_embedding.weight"][:context_length]
    for name in ("token_embedding.weight", "head.weight"):
        known = weights[name]  # (V, C)
        weights[name] = torch.cat([known, known.mean(0, keepdim=True).expand(vocab_size - len(known), -1)])
    changed.load_state_dict(weights)
    return changed.eval()


def base_of(folder: Path, config: GPTConfig) -> tuple[GPT, dict[str, Any]] | None:
    """The base of a fine-tuned model of this configuration, with its context and vocabulary, and the base's hashes;
    None if there is no base.

    Raises ValueError if the base has changed since.
    """
    lineage = read_json(folder / "lineage.json") if (folder / "lineage.json").is_file() else {}
    if "base" not in lineage:
        return None
    name = lineage["base"]["init_from"]
    base = locate.locate(name)
    found = hashes(base)
    if found["model"] != lineage["base"]["model"]:
        raise ValueError(
            f"{name} is no longer the model that {folder} was trained from. Train again from the present one: "
            "`dvc repro -f train`."
        )
    model, _ = load(base)
    return resized(model, config.context_length, config.vocab_size), found
