"""Convert a GPT's configuration and weight names to transformers' and back.

Three shapes of `model` have a counterpart: RMSNorm + RoPE + SwiGLU with QK-norm is Qwen3, the same without QK-norm is
Llama, LayerNorm + learned positions + GELU with biases and tied embeddings is GPT-2. transformers opens these folders
unchanged. Every other combination is stored under our own names, as model_type "tinygpt".
"""

import json
import re
from dataclasses import asdict, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from tinygpt.config import Model
from tinygpt.model.gpt import GPT, GPTConfig

# our name → the name in Qwen3 and Llama; N stands for the number of the block
LLAMA_NAMES = {
    "token_embedding": "model.embed_tokens",
    "blocks.N.norm1": "model.layers.N.input_layernorm",
    "blocks.N.attention.query": "model.layers.N.self_attn.q_proj",
    "blocks.N.attention.key": "model.layers.N.self_attn.k_proj",
    "blocks.N.attention.value": "model.layers.N.self_attn.v_proj",
    "blocks.N.attention.output": "model.layers.N.self_attn.o_proj",
    "blocks.N.attention.query_norm": "model.layers.N.self_attn.q_norm",
    "blocks.N.attention.key_norm": "model.layers.N.self_attn.k_norm",
    "blocks.N.norm2": "model.layers.N.post_attention_layernorm",
    "blocks.N.mlp.gate": "model.layers.N.mlp.gate_proj",
    "blocks.N.mlp.up": "model.layers.N.mlp.up_proj",
    "blocks.N.mlp.down": "model.layers.N.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
# … and in GPT-2, which stores query, key and value in one matrix, and its matrices transposed ("Conv1D")
GPT2_NAMES = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "blocks.N.norm1": "transformer.h.N.ln_1",
    "blocks.N.attention.qkv": "transformer.h.N.attn.c_attn",
    "blocks.N.attention.output": "transformer.h.N.attn.c_proj",
    "blocks.N.norm2": "transformer.h.N.ln_2",
    "blocks.N.mlp.up": "transformer.h.N.mlp.c_fc",
    "blocks.N.mlp.down": "transformer.h.N.mlp.c_proj",
    "norm": "transformer.ln_f",
}
QKV = ("query", "key", "value")
# activations in GPT-2's config.json → our `model.mlp`; of two names for the same, the first is written
ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}


def family(config: GPTConfig) -> str:
    """The counterpart of a model: `qwen3`, `llama` or `gpt2`; `tinygpt` if it has none."""
    shape = (config.norm, config.position, config.mlp, config.bias)
    if shape == ("rmsnorm", "rope", "swiglu", False):
        return "qwen3" if config.qk_norm else "llama"
    one_width = config.kv_heads == config.n_head and config.n_head * config.head_width == config.n_embd
    gpt2 = shape in [("layernorm", "learned", mlp, True) for mlp in ACTIVATIONS.values()]
    if gpt2 and config.tie_embeddings and not config.qk_norm and one_width:
        return "gpt2"
    return "tinygpt"


def why_no_counterpart(config: GPTConfig) -> str:
    """A sentence on the settings that a model without a counterpart would need to be Qwen3, Llama or GPT-2."""
    llama = {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "bias": False}
    mlp = "gelu" if config.mlp == "swiglu" else config.mlp
    gpt2 = {"norm": "layernorm", "position": "learned", "mlp": mlp, "bias": True, "tie_embeddings": True}
    gpt2 |= {"qk_norm": False, "n_kv_head": None, "head_dim": None}
    usual = {"n_kv_head": config.n_head, "head_dim": config.n_embd / config.n_head}  # the meaning of null
    needs = []
    for name, counterpart in (("Qwen3 and Llama", llama), ("GPT-2", gpt2)):
        differ = [
            key
            for key in counterpart
            if getattr(config, key) not in (counterpart[key], usual.get(key, counterpart[key]))
        ]
        settings = [f"model.{key}={json.dumps(counterpart[key])}" for key in differ]
        needs.append(f"{name} would need {', '.join(settings)}")
    return f"{'; '.join(needs)}."


def check_counterpart(config: GPTConfig, model: object, there: str) -> None:
    """Raise ValueError if `there` (transformers, llama.cpp) has no model of this configuration."""
    if family(config) == "tinygpt":
        raise ValueError(f"{there} has no model like {model}: {why_no_counterpart(config)}")


def to_json(config: GPTConfig, end_of_text: int) -> dict[str, Any]:
    """The content of config.json, without dropout, which is a training setting."""
    kind = family(config)
    common = {"model_type": kind, "dtype": "float32", "bos_token_id": end_of_text, "eos_token_id": end_of_text}
    if kind == "tinygpt":
        return common | {name: value for name, value in asdict(config).items() if name != "dropout"}
    if kind == "gpt2":
        sizes = {"n_embd": config.n_embd, "n_layer": config.n_layer, "n_head": config.n_head, "n_inner": config.hidden}
        return common | {
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": config.vocab_size,
            "n_positions": config.context_length,
            **sizes,
            "layer_norm_epsilon": config.norm_eps,
            "activation_function": next(name for name, mlp in ACTIVATIONS.items() if mlp == config.mlp),
            "tie_word_embeddings": True,
        }
    return common | {
        "architectures": ["Qwen3ForCausalLM" if kind == "qwen3" else "LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.hidden,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # read by transformers 4 and by llama.cpp's converter
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # read by transformers 5
        "attention_bias": False,
        "tie_word_embeddings": config.tie_embeddings,
    }


def from_json(values: dict[str, Any]) -> GPTConfig:
    """The configuration that `to_json` wrote.

    Raises ValueError if the family is unknown, a key is missing, or params.yaml would not allow a value: the limits
    protect against untrusted files.
    """
    if not isinstance(values, dict):
        raise ValueError("config.json is not a JSON object.")
    readers = {"qwen3": _from_llama, "llama": _from_llama, "gpt2": _from_gpt2, "tinygpt": _from_tinygpt}
    kind = values.get("model_type")
    if kind not in readers:
        raise ValueError(f"config.json has model_type {kind!r}; known here: {', '.join(readers)}.")
    try:
        shape = readers[kind](values)
    except KeyError as missing:
        raise ValueError(f"config.json lacks {missing}.") from None
    return _checked(shape)


def _checked(shape: dict[str, Any]) -> GPTConfig:
    """A GPTConfig whose values have the types and bounds of params.yaml."""
    vocab_size = shape.pop("vocab_size")
    if type(vocab_size) is not int or not 1 <= vocab_size <= 1_000_000:
        raise ValueError(f"config.json has vocab_size {vocab_size!r}.")
    try:
        section = Model.model_validate(shape | {"dropout": 0.0})
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"config.json has {problem['loc'][0]} {problem['input']!r:.40}; {problem['msg']}.") from None
    for sentence in section.problems():
        raise ValueError(f"config.json is inconsistent: {sentence}")
    return GPTConfig(vocab_size=vocab_size, **section.model_dump())


def export_weights(weights: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Our names and shapes → the family's; tied weights are stored once, as the embedding."""
    weights = {name: w for name, w in weights.items() if not (config.tie_embeddings and name == "head.weight")}
    kind = family(config)
    if kind == "tinygpt":
        return weights
    if kind == "gpt2":
        weights = {name: _transposed(name, w) for name, w in _fuse(weights, config.n_layer).items()}
    names = GPT2_NAMES if kind == "gpt2" else LLAMA_NAMES
    return {_renamed(name, names): weight for name, weight in weights.items()}


def weight_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of `export_weights` for a configuration, without allocating the weights."""
    # Learned positions instead of RoPE: on the meta device its tables make PyTorch load its compiler, which is slow.
    with torch.device("meta"):
        weights = GPT(replace(config, position="learned")).state_dict()
    if config.position == "rope":
        del weights["position_embedding.weight"]
    return {name: tuple(weight.shape) for name, weight in export_weights(weights, config).items()}


def import_weights(weights: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """The family's names and shapes → ours: the inverse of `export_weights`."""
    kind = family(config)
    if kind != "tinygpt":
        names = {theirs: ours for ours, theirs in (GPT2_NAMES if kind == "gpt2" else LLAMA_NAMES).items()}
        weights = {_renamed(name, names): weight for name, weight in weights.items()}
    if kind == "gpt2":
        weights = _split({name: _transposed(name, weight) for name, weight in weights.items()})
    if config.tie_embeddings:
        weights["head.weight"] = weights["token_embedding.weight"]
    return weights


def module_name(name: str, config: GPTConfig) -> str:
    """The family's name of a module: `blocks.3.mlp.up` → `model.layers.3.mlp.up_proj`."""
    names = GPT2_NAMES if family(config) == "gpt2" else LLAMA_NAMES
    return _renamed(f"{name}.weight", names).removesuffix(".weight")


def _from_llama(values: dict[str, Any]) -> dict[str, Any]:
    return dict(
        vocab_size=values["vocab_size"],
        n_layer=values["num_hidden_layers"],
        n_head=values["num_attention_heads"],
        n_kv_head=values["num_key_value_heads"],
        head_dim=values["head_dim"],
        n_embd=values["hidden_size"],
        mlp_hidden=values["intermediate_size"],
        context_length=values["max_position_embeddings"],
        norm="rmsnorm",
        norm_eps=values["rms_norm_eps"],
        position="rope",
        rope_theta=values["rope_theta"],
        mlp="swiglu",
        qk_norm=values["model_type"] == "qwen3",
        bias=False,
        tie_embeddings=values["tie_word_embeddings"],
    )


def _from_gpt2(values: dict[str, Any]) -> dict[str, Any]:
    return dict(
        vocab_size=values["vocab_size"],
        n_layer=values["n_layer"],
        n_head=values["n_head"],
        n_kv_head=None,
        head_dim=None,
        n_embd=values["n_embd"],
        mlp_hidden=values["n_inner"],
        context_length=values["n_positions"],
        norm="layernorm",
        norm_eps=values["layer_norm_epsilon"],
        position="learned",
        rope_theta=10000.0,
        mlp=ACTIVATIONS.get(values["activation_function"]),
        qk_norm=False,
        bias=True,
        tie_embeddings=True,
    )


def _from_tinygpt(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in GPTConfig.__dataclass_fields__ if name != "dropout"}


def _renamed(name: str, names: dict[str, str]) -> str:
    """`blocks.3.norm1.weight` → `model.layers.3.input_layernorm.weight`; names not in the table are unchanged."""
    stem, _, kind = name.rpartition(".")
    number = re.search(r"\.(\d+)\.", stem)
    pattern = re.sub(r"\.\d+\.", ".N.", stem, count=1)
    renamed = names.get(pattern, pattern)
    return f"{renamed.replace('.N.', f'.{number[1]}.') if number else renamed}.{kind}"


def _transposed(name: str, weight: Tensor) -> Tensor:
    """Transpose matrices between Conv1D (inputs, outputs) and Linear (outputs, inputs); embeddings are unchanged."""
    return weight.T.contiguous() if weight.dim() == 2 and "embedding" not in name else weight


def _fuse(weights: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Concatenate query, key and value: three (C, C) → (3C, C)."""
    fused = dict(weights)
    for layer in range(n_layer):
        for kind in ("weight", "bias"):
            parts = [fused.pop(f"blocks.{layer}.attention.{part}.{kind}") for part in QKV]
            fused[f"blocks.{layer}.attention.qkv.{kind}"] = torch.cat(parts)
    return fused


def _split(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_fuse`."""
    split: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if ".qkv." not in name:
            split[name] = weight
            continue
        for part, chunk in zip(QKV, weight.chunk(3), strict=True):
            split[name.replace("qkv", part)] = chunk.contiguous()
    return split
