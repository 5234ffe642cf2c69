"""Export a model folder as a GGUF file for llama.cpp: `write(folder, "model.gguf", "f32")`.

llama.cpp has the architectures of all three families (checkpoints/hf_names.py). The export changes names; transposes
GPT-2's matrices; and reorders the rows of Llama's queries and keys, because llama.cpp's RoPE rotates adjacent
coordinates there, and transformers' those half a head apart (for Qwen3 both agree). A character tokenizer becomes a
SentencePiece vocabulary of single characters without byte fallback, so it reads only its own characters. A unigram
becomes llama.cpp's t5 kind, which reads unknown characters as <0x1A>. A chat model's file has its role tokens and
template, which llama-server uses. Needs the package gguf. Left out: other transformers tokenizers.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.model_folder import WEIGHTS, hashes, load
from tinygpt.files.atomic import writing
from tinygpt.model.gpt import GPTConfig
from tinygpt.tokenizer import pretokenize
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.chat_template import END, WITHOUT_MARKS
from tinygpt.tokenizer.sentencepiece import FIRST, SentencePieceTokenizer

Array = npt.NDArray[np.float32]
NumberType = Literal["f32", "q8_0"]

PATTERNS = {
    pretokenize.PATTERN: "gpt-2",
    pretokenize.CL100K: "llama-bpe",
    pretokenize.O200K: "gpt-4o",
}  # llama.cpp's names of pre-tokenization patterns
SUBSTITUTE = "<0x1A>"  # llama.cpp's t5 tokenizer reads a character without a piece as this token

LLAMA_NAMES = {  # transformers' → llama.cpp's; N stands for the number of the block
    "model.embed_tokens": "token_embd",
    "model.layers.N.input_layernorm": "blk.N.attn_norm",
    "model.layers.N.self_attn.q_proj": "blk.N.attn_q",
    "model.layers.N.self_attn.k_proj": "blk.N.attn_k",
    "model.layers.N.self_attn.v_proj": "blk.N.attn_v",
    "model.layers.N.self_attn.o_proj": "blk.N.attn_output",
    "model.layers.N.self_attn.q_norm": "blk.N.attn_q_norm",
    "model.layers.N.self_attn.k_norm": "blk.N.attn_k_norm",
    "model.layers.N.post_attention_layernorm": "blk.N.ffn_norm",
    "model.layers.N.mlp.gate_proj": "blk.N.ffn_gate",
    "model.layers.N.mlp.up_proj": "blk.N.ffn_up",
    "model.layers.N.mlp.down_proj": "blk.N.ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
}
GPT2_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.h.N.ln_1": "blk.N.attn_norm",
    "transformer.h.N.attn.c_attn": "blk.N.attn_qkv",
    "transformer.h.N.attn.c_proj": "blk.N.attn_output",
    "transformer.h.N.ln_2": "blk.N.ffn_norm",
    "transformer.h.N.mlp.c_fc": "blk.N.ffn_up",
    "transformer.h.N.mlp.c_proj": "blk.N.ffn_down",
    "transformer.ln_f": "output_norm",
}


def write(folder: Path, path: Path, number_type: NumberType = "f32") -> None:
    """Write the model in `folder` to `path`, atomically.

    number_type: of the matrices, as llama.cpp names them; q8_0 is int8 with a scale for each 32 numbers of a row.
    Raises ValueError if the folder is damaged or llama.cpp has no such architecture.
    """
    model, tokenizer = load(folder)  # also verifies SHA256SUMS
    hf_names.check_counterpart(model.config, folder, "llama.cpp")
    if model.config.mlp == "gelu_exact":
        raise ValueError(f"llama.cpp's GPT-2 has the tanh approximation of GELU: {folder} would need model.mlp=gelu.")
    kind = hf_names.family(model.config)
    with writing(path) as partial:
        writer = library().GGUFWriter(partial, kind)
        writer.add_name(folder.resolve().name)
        for name, value in hashes(folder).items():
            writer.add_string(f"tinygpt.{name}", value if isinstance(value, str) else " ".join(value.values()))
        describe_model(writer, model.config)
        describe_numbers(writer, number_type)
        describe_tokenizer(writer, tokenizer)
        for name, weight in load_file(folder / WEIGHTS).items():
            add_tensor(writer, renamed(name, kind), reordered(name, weight, kind, model.config), number_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def library() -> Any:
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise ValueError(
            "A GGUF file needs the package gguf: pip install --constraint requirements.lock --editable '.[gguf]'"
        ) from None
    return gguf


def describe_model(writer: Any, config: GPTConfig) -> None:
    """Write the sizes under the keys of the writer's architecture."""
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    if config.norm == "layernorm":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.head_width)


def describe_numbers(writer: Any, number_type: NumberType) -> None:
    types = library().LlamaFileType
    if number_type == "f32":
        writer.add_file_type(types.ALL_F32)
    else:
        writer.add_file_type(types.MOSTLY_Q8_0)
        writer.add_quantization_version(library().GGML_QUANT_VERSION)


def add_tensor(writer: Any, name: str, weight: Array, number_type: NumberType) -> None:
    """Add a tensor. Only matrices are quantized, as in llama.cpp, and only those whose rows are whole blocks."""
    q8_0 = library().GGMLQuantizationType.Q8_0
    whole = weight.ndim == 2 and weight.shape[1] % library().GGML_QUANT_SIZES[q8_0][0] == 0
    if number_type == "q8_0" and whole and name != "position_embd.weight":
        writer.add_tensor(name, library().quants.quantize(weight, q8_0), raw_dtype=q8_0)
    else:
        writer.add_tensor(name, weight)


def describe_tokenizer(writer: Any, tokenizer: Tokenizer) -> None:
    """Write the vocabulary; as in TinyGPT, no token is added before a prompt."""
    types = library().TokenType
    match tokenizer:
        case BPETokenizer():
            model = tokenizer.to_json()["model"]
            tokens, kinds = sorted(model["vocab"], key=model["vocab"].get), [types.NORMAL] * tokenizer.end_of_text
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(PATTERNS[tokenizer.pattern])
            writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        case SentencePieceTokenizer():
            tokens = [piece.replace(" ", "▁") for piece in tokenizer.pieces]
            kinds = [types.USER_DEFINED, *[types.BYTE] * 256, *[types.NORMAL] * (len(tokens) - FIRST)]
            scores = tokenizer.scores or [float(-place) for place in range(len(tokens))]
            writer.add_tokenizer_model("llama" if tokenizer.scores is None else "t5")
            writer.add_token_scores([*scores, *[0.0] * len(tokenizer.special_tokens)])
            writer.add_add_space_prefix(False)
            writer.add_remove_extra_whitespaces(False)
            writer.add_unk_token_id(tokens.index(SUBSTITUTE))
        case CharTokenizer():
            tokens = ["▁" if character == " " else character for character in tokenizer.characters]
            kinds = [types.NORMAL] * len(tokens)
            writer.add_tokenizer_model("llama")
            writer.add_token_scores([0.0] * tokenizer.vocab_size)
            writer.add_add_space_prefix(False)
            if tokenizer.unknown is not None:  # NORMAL, because llama.cpp prints nothing for unknown tokens
                writer.add_unk_token_id(tokenizer.unknown)
        case _:
            raise ValueError(
                "This model's tokenizer comes from another model and cannot be converted here. Use llama.cpp's own "
                "converter on the folder, which is a transformers folder."
            )
    special = tokenizer.special_tokens
    writer.add_token_list([*tokens, *special.values()])
    writer.add_token_types([*kinds, *[types.CONTROL] * len(special)])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if tokenizer.has_roles:
        writer.add_eot_token_id(tokenizer.role_token(END))  # end of turn
        writer.add_chat_template(WITHOUT_MARKS)


def renamed(name: str, kind: str) -> str:
    """`model.layers.3.input_layernorm.weight` → `blk.3.attn_norm.weight`."""
    stem, _, last = name.rpartition(".")
    number = re.search(r"\.(\d+)\.", stem)
    theirs = (GPT2_NAMES if kind == "gpt2" else LLAMA_NAMES)[re.sub(r"\.\d+\.", ".N.", stem, count=1)]
    return f"{theirs.replace('.N.', f'.{number[1]}.') if number else theirs}.{last}"


def reordered(name: str, weight: Array, kind: str, config: GPTConfig) -> Array:
    """A weight in llama.cpp's layout; matrices are (outputs, inputs)."""
    if kind == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return weight.T.copy()
    if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        halves = weight.reshape(-1, 2, config.head_width // 2, weight.shape[1])  # (heads, 2, D/2, C)
        return halves.swapaxes(1, 2).reshape(weight.shape)
    return weight
