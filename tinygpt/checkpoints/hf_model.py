"""Models that others trained: `read(folder)` opens a transformers folder of GPT-2, Qwen3 or Llama shape.

Such a folder differs from ours in what it leaves to defaults, in its precision (bf16 and fp16 become float32, exactly),
in being cut into several files, in tensors that are no weights, and in its tokenizer, which may be any that the
`tokenizers` library runs. What would compute something else than our model does is refused in a sentence: biases where
there should be none, another activation, stretched rotary positions, sliding windows, quantised weights. Nothing is
unpickled: a folder with pytorch_model.bin alone is refused. `model_folder.load` comes here for a folder without
lineage.json.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file

from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.hf_tokenizer import end_of_text, open_tokenizer
from tinygpt.files.text import check_fetched, read_json
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.tokenizer.base import Tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST = 4096  # tokens of context that are used of a model that has more: the cache takes memory for all of them
NO_WEIGHTS = re.compile(
    r"(\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$"
)  # masks and tables, saved by old versions
FLOATS = ("F32", "F16", "BF16")

GPT2_DEFAULTS: dict[str, Any] = {  # what transformers takes where config.json says nothing
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
ALLOWED: dict[str, tuple[Any, ...]] = {  # of what would change the arithmetic, the values that are ours
    "activation_function": tuple(hf_names.ACTIVATIONS),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "quantization_config": (None,),
}


def read(folder: Path) -> tuple[GPT, Tokenizer]:
    """The model in `folder`, in eval mode on the CPU in float32, and its tokenizer.

    Raises ValueError in a sentence for a folder of another shape, or one that is damaged; names, shapes and dtypes are
    compared before memory is taken.
    """
    try:
        values = completed(read_json(folder / "config.json"))
        config, end, files = hf_names.from_json(values), end_of_text(values), weight_files(folder)
    except (KeyError, TypeError, AttributeError, IndexError) as problem:
        raise ValueError(
            f"{folder} is damaged, or of a kind unknown here: {problem!r} in config.json or the index."
        ) from problem
    found = {tidied(name, config): (shape, dtype) for file in files for name, shape, dtype in header(file)}
    if config.n_layer > len(found):
        raise ValueError(f"{folder} does not fit its config.json: {config.n_layer} blocks, but {len(found)} tensors.")
    expected = hf_names.weight_shapes(config)
    compare(folder, expected, found)
    tokenizer = open_tokenizer(folder, end, config.vocab_size)
    weights = {tidied(name, config): w for file in files for name, w in load_file(file).items()}
    model = GPT(config)
    model.load_state_dict(hf_names.import_weights({name: weights[name].float() for name in expected}, config))
    return model.eval(), tokenizer


def completed(values: Any) -> dict[str, Any]:
    """config.json as our own has it: defaults filled in, names of older versions renewed."""
    if not isinstance(values, dict) or values.get("model_type") not in ("gpt2", "qwen3", "llama"):
        kind = values.get("model_type") if isinstance(values, dict) else None
        raise ValueError(f"config.json has model_type {kind!r}; others' models open here as gpt2, qwen3 or llama.")
    full = (GPT2_DEFAULTS if values["model_type"] == "gpt2" else LLAMA_DEFAULTS) | values
    for key, allowed in ALLOWED.items():
        if full.get(key, allowed[0]) not in allowed:
            raise ValueError(
                f"config.json has {key} {full[key]!r:.60}; "
                f"TinyGPT's {full['model_type']} has {' or '.join(map(repr, allowed))}."
            )
    if full["model_type"] == "gpt2":
        if not full["tie_word_embeddings"]:
            raise ValueError("config.json unties GPT-2's embeddings; TinyGPT's gpt2 ties them.")
        return full
    rope = full.get("rope_parameters") or full.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"config.json stretches its rotary positions ({rope!r:.80}); TinyGPT's are plain.")
    full["rope_theta"] = rope.get("rope_theta", full.get("rope_theta", 10000.0))
    full["num_key_value_heads"] = full["num_key_value_heads"] or full["num_attention_heads"]
    full["max_position_embeddings"] = min(full["max_position_embeddings"], LONGEST)
    return full


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, all that its index names where it has one."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = next(folder.glob("*.bin"), None)
        why = f"; {pickled.name} is a pickle, which could run anything" if pickled else ""
        raise FileNotFoundError(f"There is no model in {folder}: {WEIGHTS} is missing{why}.")
    names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)) or not (folder / name).is_file():
            raise ValueError(f"{folder} is damaged: {INDEX} names {name!r}, which is not there.")
    return [folder / name for name in names]


def header(file: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and dtype of every weight in a safetensors file, without reading it."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                part = opened.get_slice(name)
                if not NO_WEIGHTS.search(name):
                    yield name, tuple(part.get_shape()), part.get_dtype()
    except safetensors.SafetensorError as problem:
        check_fetched(file)
        raise ValueError(f"{file} is damaged: {problem}.") from problem


def tidied(name: str, config: GPTConfig) -> str:
    """A weight's name with the stem that saving the inner model alone leaves out (`wte.weight`)."""
    stem = "transformer." if hf_names.family(config) == "gpt2" else "model."
    return name if name.startswith((stem, "lm_head.")) else stem + name


def compare(folder: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """ValueError names the first weight that is missing, unknown, or of another shape or kind."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{folder} does not fit its config.json: {name} is missing.")
        if name not in expected:
            if name == "lm_head.weight":
                continue  # tied: the embedding once more
            raise ValueError(f"{folder} does not fit its config.json: {name} is unknown.")
        shape, dtype = found[name]
        if shape != expected[name] or dtype not in FLOATS:
            raise ValueError(f"{folder} does not fit its config.json: {name} is {shape} {dtype}, not {expected[name]}.")
