"""A model folder as a GGUF file: its metadata, names and refusals. That llama.cpp reads it: test_matrix.py."""

from pathlib import Path
from typing import Any

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
