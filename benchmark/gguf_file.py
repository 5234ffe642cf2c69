"""A model folder of GPT-2's shape as a GGUF file, so that llama.cpp can be measured on the same weights.

Enough for llama-bench, which never reads a text: the vocabulary in it is made up. Needs the package gguf.
"""

import importlib
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tinygpt.files import read_json

NAMES = {  # GPT-2's, as transformers spells them → llama.cpp's
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def write_gguf(folder: Path, path: Path) -> None:
    """Write the model in `folder`, of GPT-2's family, to `path`, in float32."""
    gguf = importlib.import_module("gguf")
    values = read_json(folder / "config.json")
    writer: Any = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(values["n_positions"])
    writer.add_embedding_length(values["n_embd"])
    writer.add_block_count(values["n_layer"])
    writer.add_feed_forward_length(values["n_inner"])
    writer.add_head_count(values["n_head"])
    writer.add_layer_norm_eps(values["layer_norm_epsilon"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"<{i}>" for i in range(values["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * values["vocab_size"])
    writer.add_token_merges(["< 0"])
    for name, weight in load_file(folder / "model.safetensors").items():
        matrix = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))  # stored transposed ("Conv1D")
        writer.add_tensor(renamed(name), weight.T.copy() if matrix else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def renamed(name: str) -> str:
    """transformer.h.3.ln_1.weight → blk.3.attn_norm.weight"""
    stem, _, kind = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{NAMES[part]}.{kind}"
