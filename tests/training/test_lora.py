"""tinygpt/training/lora.py: a change of low rank learns alone, adds up to a plain model, and is peft's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.chat_model import CONTEXT, CONVERSATIONS, packed
from tests.conftest import CPU, SHAPES, gpt, params
from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.base_model import added_tokens, open_base, resized
from tinygpt.checkpoints.model_folder import save_model
from tinygpt.export import hf
from tinygpt.export.peft import to_peft
from tinygpt.files.text import read_json
from tinygpt.generation.generate import generate
from tinygpt.model.gpt import GPT, count_parameters
from tinygpt.model.loss import cross_entropy
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import END
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


NEW = [59, 12, 60]  # in no order; one of them unused so far, as in a padded vocabulary


def grown(shape: dict[str, Any]) -> GPT:
    """An adapted model with new tokens, all of whose changes are not zero."""
    model = gpt(**shape)
    generator = torch.Generator().manual_seed(3)
    _lora.adapt(model, RANK, ALPHA, generator, NEW)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((_lora.B, _lora.ROWS)):
                parameter.normal_(0.0, 0.2, generator=generator)
    return model.eval()


def test_new_tokens_change_nothing_at_first(shape: dict[str, Any]) -> None:
    model = gpt(**shape)
    before = model(TOKENS)
    _lora.adapt(model, RANK, ALPHA, torch.Generator().manual_seed(1), NEW)
    assert torch.equal(model(TOKENS), before)


def test_of_embedding_and_head_the_rows_of_new_tokens_learn_alone(shape: dict[str, Any]) -> None:
    model, plain = grown(shape), gpt(**shape)
    learning = {name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("blocks.")}
    tied = plain.config.tie_embeddings
    assert learning == {"token_embedding.lora_rows"} | (set() if tied else {"head.lora_rows"})
    after = _lora.merged(weights(model), RANK, ALPHA, NEW)
    for name in ("token_embedding.weight",) if tied else ("token_embedding.weight", "head.weight"):
        changed = (after[name] != plain.state_dict()[name]).any(1).nonzero().flatten().tolist()
        assert changed == sorted(NEW)


def test_merged_rows_compute_what_the_adapted_ones_do(shape: dict[str, Any]) -> None:
    model, plain = grown(shape), gpt(**shape)
    tokens = torch.cat([TOKENS, torch.tensor([[*NEW, 1, 2, 3, *NEW]])])
    plain.load_state_dict(_lora.merged(weights(model), RANK, ALPHA, NEW), strict=not plain.config.tie_embeddings)
    torch.testing.assert_close(plain(tokens), model(tokens), atol=2e-5, rtol=1e-4)


def test_the_gradient_of_a_row_is_that_of_the_whole_matrix(shape: dict[str, Any]) -> None:
    model, plain = grown(shape), gpt(**shape)
    plain.load_state_dict(_lora.merged(weights(model), RANK, ALPHA, NEW), strict=not plain.config.tie_embeddings)
    tokens = torch.tensor([[*NEW, 1, 2, 3, *NEW]])
    for one in (model, plain):
        cross_entropy(one(tokens[:, :-1]), tokens[:, 1:], "mean").backward()
    for mine, whole in ((model.token_embedding, plain.token_embedding), (model.head, plain.head)):
        rows: Any = mine.lora_rows
        assert whole.weight.grad is not None
        torch.testing.assert_close(rows.grad, whole.weight.grad[NEW], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grows", [True, False])
def test_a_chat_is_learned_with_rows_of_role_tokens_and_not_without(grows: bool, characters: Tokenizer) -> None:
    chat = characters.with_roles()
    new = added_tokens(chat, characters)
    base = resized(gpt(characters.vocab_size, context_length=CONTEXT), CONTEXT, chat.vocab_size, new)
    changes = {"steps": 100, "lora_rank": 8, "learning_rate": 0.02, "warmup_steps": 0, "init_from": "x"}
    settings = params(**{f"train__{name}": value for name, value in changes.items()}).train
    state = initial_state(base.config, settings, 1, CPU, "fp32", base.state_dict(), new if grows else [])
    data = packed(chat)
    for _ in train(state, settings, {"train": data, "validation": data}, 1, "fp32", chat.end_of_text):
        pass
    base.load_state_dict(_lora.merged(state.best, 8, settings.lora_alpha, new))
    ends = [next_token(base, chat, messages) == chat.role_token(END) for messages in CONVERSATIONS]
    assert all(ends) if grows else not any(ends)  # without, all role tokens are equally likely, and <|system|> is first
    if grows:
        assert sum(greedy(base, chat, messages) for messages in CONVERSATIONS) >= len(CONVERSATIONS) - 1


def next_token(model: GPT, chat: Tokenizer, messages: Any) -> int:
    """The likeliest token after an answer."""
    ids, _ = chat.encode_messages(messages)
    return int(model.eval()(torch.tensor([ids[:-1]]))[0, -1].argmax())


def greedy(model: GPT, chat: Tokenizer, messages: Any) -> bool:
    """Whether the model answers as it was taught."""
    (made,) = generate(model.eval(), chat, messages[:-1], max_new_tokens=CONTEXT, temperature=0)
    return made.completion == messages[-1]["content"]


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "mixed"])
def test_peft_opens_an_adapter_with_new_tokens_and_computes_the_same(
    name: str, tmp_path: Path, characters: Tokenizer
) -> None:
    peft = pytest.importorskip("peft")
    plain, chat = gpt(characters.vocab_size, **SHAPES[name]), characters.with_roles()
    lineage: dict[str, Any] = {"text": {}, "tokenizer": "t", "params": "p"}
    save_model(tmp_path / "base", plain.config, weights(plain), characters, lineage)
    model, origin = open_base(str(tmp_path / "base"), chat, params().model)
    new = origin["new_tokens"]
    assert new == [chat.vocab_size - 4 + i for i in range(4)]
    _lora.adapt(model, RANK, ALPHA, torch.Generator().manual_seed(3), new)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith((_lora.B, _lora.ROWS)):
                parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(key)))
    learned = weights(model)
    lineage |= {"base": origin, "train": {"lora_rank": RANK, "lora_alpha": ALPHA}}
    merged = _lora.merged(learned, RANK, ALPHA, new)
    save_model(tmp_path / "tuned", model.config, merged, chat, lineage, _lora.learned(learned))
    hf.write_adapter(tmp_path / "tuned", tmp_path / "adapter")
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    tokens = torch.cat([torch.tensor([new + new[:1]]), TOKENS[:1, :5]]) % chat.vocab_size
    torch.testing.assert_close(opened(tokens).logits, model(tokens), atol=1e-4, rtol=1e-3)
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path / "adapter")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "O"}], add_generation_prompt=True)["input_ids"]
    assert ids == chat.encode_messages([{"role": "user", "content": "O"}], add_generation_prompt=True)[0]


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "mixed"])
def test_peft_opens_the_the_changes_and_computes_the_same(name: str, tmp_path: Path, characters: Tokenizer) -> None:
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
