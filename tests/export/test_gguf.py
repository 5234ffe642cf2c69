"""A model folder as a GGUF file: its metadata, names and refusals. That llama.cpp reads it: test_matrix.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.test_model_folder import LINEAGE
from tests.conftest import GPT2, gpt, gpt_config
from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.model_folder import hashes, save_model
from tinygpt.export import gguf as gguf_file
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training.state import weights


def saved(folder: Path, vocabulary: Tokenizer, **changes: Any) -> Path:
    model = gpt(vocabulary.vocab_size, context_length=64, **changes)
    save_model(folder, model.config, weights(model), vocabulary, LINEAGE)
    return folder


def test_the_file_names_the_hashes_of_what_it_came_from(tmp_path: Path, characters: Tokenizer) -> None:
    gguf = pytest.importorskip("gguf")
    folder = saved(tmp_path / "model", characters)
    gguf_file.write(folder, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    for name, value in hashes(folder).items():
        assert fields[f"tinygpt.{name}"].contents() == (value if isinstance(value, str) else " ".join(value.values()))


def test_q8_0_quantizes_the_matrices_whose_rows_are_whole_blocks(tmp_path: Path, characters: Tokenizer) -> None:
    gguf = pytest.importorskip("gguf")
    folder = saved(tmp_path / "model", characters, **GPT2 | {"n_embd": 32, "mlp_hidden": 72})
    found = {}
    for number_type in ("f32", "q8_0"):
        gguf_file.write(folder, tmp_path / number_type, number_type)
        found[number_type] = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / number_type).tensors}
    plain = {name: np.asarray(tensor.data) for name, tensor in found["f32"].items()}
    quantized = {name: tensor for name, tensor in found["q8_0"].items() if tensor.tensor_type.name == "Q8_0"}
    assert set(quantized) == {"token_embd.weight"} | {
        f"blk.{block}.{name}.weight" for block in range(2) for name in ("attn_qkv", "attn_output", "ffn_up")
    }  # not ffn_down, whose rows have 72 numbers, nor the learned positions
    for name, tensor in found["q8_0"].items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type) if name in quantized else tensor.data
        assert np.abs(values - plain[name]).max() <= (np.abs(plain[name]).max() / 250 if name in quantized else 0)


def test_a_mix_without_a_twin_is_refused_and_says_what_it_would_need(tmp_path: Path, characters: Tokenizer) -> None:
    folder = saved(tmp_path / "model", characters, norm="layernorm", mlp="gelu", bias=True)
    with pytest.raises(ValueError, match=r"GPT-2 would need .*model.position=\"learned\""):
        gguf_file.write(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_exact_gelu_is_refused_since_llama_cpp_would_compute_the_other_form(
    tmp_path: Path, characters: Tokenizer
) -> None:
    folder = saved(tmp_path / "model", characters, **GPT2 | {"mlp": "gelu_exact"})
    with pytest.raises(ValueError, match=r"tanh approximation of GELU: .* would need model.mlp=gelu\."):
        gguf_file.write(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_only_settings_that_stand_in_the_way_of_a_twin_are_named() -> None:
    gpt2: dict[str, Any] = {"norm": "layernorm", "position": "learned", "mlp": "gelu", "qk_norm": False, "bias": True}
    config = gpt_config(**gpt2, tie_embeddings=False, n_kv_head=2, head_dim=16)  # what null stands for, written out
    assert hf_names.why_no_counterpart(config).endswith("; GPT-2 would need model.tie_embeddings=true.")
    config = gpt_config(**gpt2, tie_embeddings=True, n_kv_head=1)
    assert hf_names.why_no_counterpart(config).endswith("; GPT-2 would need model.n_kv_head=null.")


def test_tensors_are_named_as_llama_cpp_names_them() -> None:
    assert gguf_file.renamed("transformer.wte.weight", "gpt2") == "token_embd.weight"
    assert gguf_file.renamed("model.layers.11.self_attn.q_norm.weight", "qwen3") == "blk.11.attn_q_norm.weight"
