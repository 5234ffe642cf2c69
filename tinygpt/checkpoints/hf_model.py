"""Read a transformers folder of a GPT-2, Qwen3 or Llama model: `read(folder)` → Source.

Such a folder may omit defaults, have bf16 or fp16 weights (converted to float32 exactly), several weight files, tensors
that are not weights, and any tokenizer that the `tokenizers` library runs. Models that compute something else than ours
are refused: extra biases, another activation, scaled RoPE, sliding windows, quantised weights. Nothing is unpickled: a
folder with only pytorch_model.bin is refused. `model_folder.load` uses this for a folder without lineage.json.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.hf_tokenizer import end_of_text, open_tokenizer
from tinygpt.checkpoints.source import Source
from tinygpt.checkpoints.tensors import read_header
from tinygpt.files.text import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST = 4096  # tokens of context used at most, because the KV cache is allocated for all of them
BUFFERS = re.compile(r"(\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")  # masks and tables saved by old versions
FLOATS = ("F32", "F16", "BF16")

GPT2_DEFAULTS: dict[str, Any] = {  # transformers' defaults for keys missing from config.json
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
LLAMA_DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
}
ALLOWED: dict[str, tuple[Any, ...]] = {  # keys that change what is computed → the values our model implements
    "activation_function": tuple(hf_names.ACTIVATIONS),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "quantization_config": (None,),
}


def read(folder: Path) -> Source:
    """The contents of `folder`. Raises ValueError if the model is of another kind or damaged."""
    try:
        values = completed(read_json(folder / "config.json"))
        config, end, files = hf_names.from_json(values), end_of_text(values), weight_files(folder)
    except (KeyError, TypeError, AttributeError, IndexError) as problem:
        raise ValueError(
            f"{folder} is damaged, or of a kind unknown here: {problem!r} in config.json or the index."
        ) from problem
    stem = "transformer." if hf_names.family(config) == "gpt2" else "model."

    def full_name(name: str) -> str:
        """A weight's name with its prefix, missing if the inner model was saved alone (`wte.weight`)."""
        return name if name.startswith((stem, "lm_head.")) else stem + name

    headers = [item for file in files for item in read_header(file).items() if not BUFFERS.search(item[0])]
    found = {full_name(name): shape_and_dtype for name, shape_and_dtype in headers}
    if config.tie_embeddings:
        found.pop("lm_head.weight", None)  # a copy of the embedding
    opener = partial(open_tokenizer, folder, end, config.vocab_size)
    return Source(config, files, found, FLOATS, opener, full_name)


def completed(values: Any) -> dict[str, Any]:
    """config.json with defaults filled in and keys of older versions converted; raises ValueError (see ALLOWED)."""
    if not isinstance(values, dict) or values.get("model_type") not in ("gpt2", "qwen3", "llama"):
        kind = values.get("model_type") if isinstance(values, dict) else None
        raise ValueError(f"config.json has model_type {kind!r}; supported are gpt2, qwen3 and llama.")
    full = (GPT2_DEFAULTS if values["model_type"] == "gpt2" else LLAMA_DEFAULTS) | values
    for key, allowed in ALLOWED.items():
        if full.get(key, allowed[0]) not in allowed:
            raise ValueError(
                f"config.json has {key} {full[key]!r:.60}; "
                f"TinyGPT's {full['model_type']} has {' or '.join(map(repr, allowed))}."
            )
    if full["model_type"] == "gpt2":
        if not full["tie_word_embeddings"]:
            raise ValueError("config.json has untied embeddings; TinyGPT's gpt2 ties them.")
        return full
    rope = full.get("rope_parameters") or full.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"config.json scales its rotary positions ({rope!r:.80}); TinyGPT's are not scaled.")
    full["rope_theta"] = rope.get("rope_theta", full.get("rope_theta", 10000.0))
    full["num_key_value_heads"] = full["num_key_value_heads"] or full["num_attention_heads"]
    full["max_position_embeddings"] = min(full["max_position_embeddings"], LONGEST)
    return full


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or all those in its index."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = next(folder.glob("*.bin"), None)
        why = f"; {pickled.name} is a pickle, which could run any code" if pickled else ""
        raise FileNotFoundError(f"There is no model in {folder}: {WEIGHTS} is missing{why}.")
    names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)) or not (folder / name).is_file():
            raise ValueError(f"{folder} is damaged: {INDEX} names {name!r}, which is missing.")
    return [folder / name for name in names]
