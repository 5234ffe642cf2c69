"""Fine-tune from a trained model: `base, origin = open_base(name, tokenizer, params.model)`.

A base model keeps its shape and its tokenizer; its context may be shortened, and its vocabulary grow by role tokens. A
fine-tuned model's lineage names its base, so that `base_of(folder)` finds it again. Training from it:
training/state.py; LoRA: training/lora.py; the loss before and after: evaluation/before_after.py.
"""

from collections.abc import Sequence
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
from tinygpt.tokenizer.chat_template import ROLE_TOKENS


def open_base(name: str, tokenizer: Tokenizer, section: Model) -> tuple[GPT, dict[str, Any]]:
    """The base model in eval mode on the CPU, in float32, and its lineage entry: name, hashes, new tokens if any.

    Only `section`'s dropout and context length are used. If `tokenizer` has role tokens and the base's has none, the
    model grows by them. Raises ValueError if the tokenizer is another, or the model's context is shorter.
    """
    folder = locate.locate(name)
    model, base_tokenizer = load(folder)
    wanted = base_tokenizer.with_roles() if tokenizer.has_roles else base_tokenizer
    if tokenizer.to_json() != wanted.to_json():
        raise ValueError(f"data/tokenizer differs from the tokenizer of {name}. Set tokenize.from to {name}.")
    if section.context_length > model.config.context_length:
        raise ValueError(
            f"model.context_length is {section.context_length}, but that of {name} is {model.config.context_length}. "
            f"Set it to {model.config.context_length} or less."
        )
    new = added_tokens(tokenizer, base_tokenizer)
    changed = resized(model, section.context_length, tokenizer.vocab_size, new, section.dropout)
    return changed, {"init_from": name} | hashes(folder) | ({"new_tokens": new} if new else {})


def added_tokens(tokenizer: Tokenizer, base: Tokenizer) -> list[int]:
    """The ids of the role tokens that `base` lacks; else it is the same tokenizer."""
    known = {entry["content"] for entry in base.to_json().get("added_tokens", [])}
    return [tokenizer.role_token(name) for name in ROLE_TOKENS if tokenizer.has_roles and name not in known]


def resized(
    model: GPT, context_length: int, vocab_size: int, new_tokens: Sequence[int] = (), dropout: float = 0.0
) -> GPT:
    """The same model with a context of `context_length`, at most its own, and `vocab_size` tokens, at least its own.

    Learned positions beyond the context are dropped. new_tokens: the ids beyond the model's vocabulary, and any that it
    had, but did not use. Their embeddings and logits start at the mean of all others (Hewitt 2021), so that they are
    neither likely nor unlikely, and move the residual stream little.
    """
    changed = GPT(replace(model.config, context_length=context_length, vocab_size=vocab_size, dropout=dropout))
    weights = model.state_dict()
    if model.position_embedding is not None:
        weights["position_embedding.weight"] = weights["position_embedding.weight"][:context_length]
    for name in ("token_embedding.weight", "head.weight"):
        known = weights[name]  # (V, C)
        grown = torch.cat([known, known.new_zeros(vocab_size - len(known), known.shape[1])])
        others = [token for token in range(len(known)) if token not in new_tokens]
        grown[list(new_tokens)] = known[others].mean(0)
        weights[name] = grown
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
    return resized(model, config.context_length, config.vocab_size, lineage["base"].get("new_tokens", [])), found
