"""tinygpt/training/lora.py: a change of low rank learns alone, adds up to a plain model, and is peft's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import CPU, SHAPES, gpt, params
from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.model_folder import save_model
from tinygpt.export.peft import to_peft
from tinygpt.files.text import read_json
from tinygpt.model.gpt import GPT, count_parameters
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training import lora as _lora
from tinygpt.training.loop import train
from tinygpt.training.results import write_curves
from tinygpt.training.state import initial_state, weights

RANK, ALPHA = 2, 6.0


def adapted(**changes: Any) -> GPT:
    """A small model with changes that are not zero."""
    model = gpt(**changes)
    generator = torch.Generator().manual_seed(3)
    _lora.adapt(model, RANK, ALPHA, generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(_lora.B):
                parameter.normal_(0.0, 0.2, generator=generator)
    return model.eval()


TOKENS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(4))


def test_a_run_begins_at_exactly_the_model_that_it_adapts(shape: dict[str, Any]) -> None:
    model = gpt(**shape)
    before = model(TOKENS)
    _lora.adapt(model, RANK, ALPHA, torch.Generator().manual_seed(1))
    assert torch.equal(model(TOKENS), before)


def test_every_matrix_of_the_stack_gets_a_change_and_nothing_else_learns(shape: dict[str, Any]) -> None:
    plain = gpt(**shape)
    matrices = {n for n, p in plain.blocks.named_parameters() if p.dim() == 2}
    model = adapted(**shape)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {f"blocks.{n.removesuffix('.weight')}{end}" for n in matrices for end in (_lora.A, _lora.B)}


def test_merged_weights_compute_what_the_adapted_model_does(shape: dict[str, Any]) -> None:
    model = adapted(**shape)
    plain = gpt(**shape)
    assert not torch.allclose(plain(TOKENS), model(TOKENS), atol=0.01)
    plain.load_state_dict(_lora.merged(weights(model), RANK, ALPHA), strict=not plain.config.tie_embeddings)
    torch.testing.assert_close(plain(TOKENS), model(TOKENS), atol=2e-5, rtol=1e-4)


def test_alpha_over_rank_is_how_strongly_a_change_counts() -> None:
    learned = weights(adapted())
    name = _lora.changes(learned)[0]
    base = learned[f"{name}.weight"]
    once, twice = (_lora.merged(learned, RANK, alpha)[f"{name}.weight"] - base for alpha in (ALPHA, 2 * ALPHA))
    torch.testing.assert_close(twice, 2 * once)
    torch.testing.assert_close(once, 3.0 * learned[name + _lora.B] @ learned[name + _lora.A], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_moves_the_changes_alone_and_learns(optimizer: str, data: dict[str, Any], tmp_path: Path) -> None:
    changes = {"optimizer": optimizer, "steps": 30, "init_from": "x", "lora_rank": 4, "warmup_steps": 0}
    settings = params(**{f"train__{name}": value for name, value in changes.items()}).train
    base = gpt()
    state = initial_state(base.config, settings, 1, CPU, "fp32", base.state_dict())
    for _ in train(state, settings, data, seed=1, precision="fp32"):
        pass
    after = weights(state.model)
    for name, weight in base.named_parameters():
        assert torch.equal(after[name], weight), name
    assert state.best_loss < state.validation_rows[0]["loss"] - 0.3
    write_curves(tmp_path, state, settings)
    assert read_json(tmp_path / "metrics.json")["parameters"] == sum(one.numel() for one in base.parameters())
    assert all(after[name + _lora.B].abs().max() > 0 for name in _lora.changes(after))


def test_the_same_seed_draws_the_same_changes_and_another_seed_others() -> None:
    settings = params(train__init_from="x", train__lora_rank=2).train
    base = gpt()

    def drawn(seed: int) -> torch.Tensor:
        model = initial_state(base.config, settings, seed, CPU, "fp32", base.state_dict()).model
        return weights(model)["blocks.0.mlp.up.lora_a"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "mixed"])
def test_peft_opens_the_changes_and_computes_the_same(name: str, tmp_path: Path, characters: Tokenizer) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    size = characters.vocab_size
    model, plain = adapted(vocab_size=size, **SHAPES[name]), gpt(vocab_size=size, **SHAPES[name])
    tokens = TOKENS % size
    lineage = {"text": {}, "tokenizer": "t", "params": "p"}
    save_model(tmp_path / "base", plain.config, plain.state_dict(), characters, lineage)
    tensors, said = to_peft(weights(model), model.config, RANK, ALPHA)
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter/adapter_model.safetensors", {"format": "pt"})
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(said))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    opened = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(opened(tokens).logits, model(tokens), atol=1e-4, rtol=1e-3)
    whole = opened.merge_and_unload().state_dict()
    mine = hf_names.export_weights(_lora.merged(weights(model), RANK, ALPHA), model.config)
    assert all(torch.allclose(whole[key], weight, atol=1e-5) for key, weight in mine.items())


def test_gpt2s_three_changes_are_one_of_three_times_the_rank() -> None:
    model = adapted(**SHAPES["gpt2"])
    tensors, said = to_peft(weights(model), model.config, RANK, ALPHA)
    assert tensors["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"].shape == (3 * RANK, 32)
    assert (said["rank_pattern"], said["alpha_pattern"]) == ({"c_attn": 3 * RANK}, {"c_attn": 3 * ALPHA})
    assert count_parameters(model) > count_parameters(gpt(**SHAPES["gpt2"]))
