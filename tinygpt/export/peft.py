"""Export LoRA weights as an adapter for peft: `to_peft(changes, …)`, and of new tokens `rows_to_peft(model, ids)`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinygpt.checkpoints import hf_names
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.training.lora import A, B, changes


def to_peft(
    weights: dict[str, Tensor], config: GPTConfig, rank: int, alpha: float
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """LoRA weights in peft's format: (tensors of adapter_model.safetensors, content of adapter_config.json).

    GPT-2 stores query, key and value in one matrix. Three updates of rank r to its parts are one update of rank 3r to
    the whole: the A matrices stacked, the B matrices block-diagonal.
    """
    pairs = {name: (weights[name + A], weights[name + B]) for name in changes(weights)}
    fused = hf_names.family(config) == "gpt2"
    if fused:
        for layer in range(config.n_layer):
            parts = [pairs.pop(f"blocks.{layer}.attention.{part}") for part in hf_names.QKV]
            stacked = torch.cat([a for a, _ in parts]), torch.block_diag(*(b for _, b in parts))
            pairs[f"blocks.{layer}.attention.qkv"] = stacked
    names = {name: hf_names.module_name(name, config) for name in pairs}
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"base_model.model.{names[name]}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{names[name]}.lora_B.weight"] = b.contiguous()
    three = {"rank_pattern": {"c_attn": 3 * rank}, "alpha_pattern": {"c_attn": 3 * alpha}} if fused else {}
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in names.values()}),
        "fan_in_fan_out": fused,  # Conv1D stores its matrix transposed
        "inference_mode": True,
        **three,
    }
    return tensors, adapter


def rows_to_peft(model: GPT, new_tokens: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The rows of new tokens in embedding and head, as `to_peft`; nothing if there are none.

    model: with the changes merged. peft stores the rows themselves, (N, C), not their change.
    """
    if not new_tokens:
        return {}, {}
    weights = {"token_embedding": model.token_embedding.weight, "head": model.head.weight}  # (V, C) each
    if model.config.tie_embeddings:
        del weights["head"]
    names = {name: hf_names.module_name(name, model.config) for name in weights}
    tensors = {
        f"base_model.model.{names[name]}.token_adapter.trainable_tokens_delta": weight.detach()[list(new_tokens)]
        for name, weight in weights.items()
    }
    return tensors, {"trainable_token_indices": {name.rpartition(".")[2]: list(new_tokens) for name in names.values()}}
