"""First principles: a good start, no look into the future, every part learns."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import SHAPES, gpt, gpt_config
from tinygpt.model.gpt import GPT, Norm, Rotary, count_parameters, training_flops_per_token

TOKENS = torch.randint(0, 61, (3, 16), generator=torch.Generator().manual_seed(0))


def fresh(**changes: Any) -> GPT:
    model = GPT(gpt_config(**changes))
    model.initialise(torch.Generator().manual_seed(1))
    return model


def loss_of(model: GPT, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def test_widths_that_are_given_are_taken_and_others_follow_from_the_rest() -> None:
    given = gpt_config(n_embd=48, n_head=2, n_kv_head=1, head_dim=12, mlp_hidden=50)
    assert (given.head_width, given.kv_heads, given.hidden) == (12, 1, 50)
    for n_embd, swiglu in ((32, 96), (48, 128), (64, 192), (196, 544)):  # 8/3 of it, up to a multiple of 32
        config = gpt_config(n_embd=n_embd, n_head=2)
        assert (config.head_width, config.kv_heads, config.hidden) == (n_embd // 2, 2, swiglu)
        assert gpt_config(n_embd=n_embd, mlp="gelu").hidden == 4 * n_embd
        assert gpt_config(n_embd=n_embd, mlp="gelu_exact").hidden == 4 * n_embd


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        gpt_config().n_layer = 3  # type: ignore[misc]


def test_the_first_loss_is_that_of_a_uniform_guess(shape: dict[str, Any]) -> None:
    loss = loss_of(fresh(**shape), TOKENS).item()
    assert abs(loss - math.log(61)) < 0.03 * math.log(61)


@pytest.mark.parametrize("n_embd", [128, 768])
@pytest.mark.parametrize("name", ["gpt2", "qwen3-tied", "qwen3"])
def test_the_first_loss_is_that_of_a_uniform_guess_at_real_widths_too(name: str, n_embd: int) -> None:
    model = fresh(**SHAPES[name], n_embd=n_embd, n_layer=1)
    tokens = torch.randint(0, 61, (4, 16), generator=torch.Generator().manual_seed(5))
    assert abs(loss_of(model, tokens).item() - math.log(61)) < 0.03 * math.log(61)


def test_a_token_changes_no_score_before_it(shape: dict[str, Any]) -> None:
    model = gpt(**shape)
    for t in (1, 7, 15):
        changed = TOKENS.clone()
        changed[:, t] = (changed[:, t] + 1) % 61
        before, after = model(TOKENS), model(changed)
        torch.testing.assert_close(before[:, :t], after[:, :t])
        assert not torch.allclose(before[:, t:], after[:, t:])


def test_every_token_so_far_changes_the_last_score(shape: dict[str, Any]) -> None:
    model = gpt(**shape)
    embedded: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    model.token_embedding.register_forward_hook(keep)
    model(TOKENS)[:, -1].square().sum().backward()
    assert embedded[0].grad is not None
    assert (embedded[0].grad.abs().sum(-1) > 0).all()


def test_every_parameter_receives_gradient_after_one_step(shape: dict[str, Any]) -> None:
    model = fresh(**shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loss_of(model, TOKENS).backward()
    optimizer.step()
    optimizer.zero_grad()
    loss_of(model, TOKENS).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a key's bias moves all scores of a query alike, and softmax does not see it
    assert [name for name in silent if not name.endswith("key.bias")] == []


def test_more_tokens_than_the_context_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit into a context of 16"):
        gpt()(torch.zeros(1, 17, dtype=torch.int64))


def test_rotary_scores_depend_on_distance_alone() -> None:
    config = gpt_config()
    rotary = Rotary(config)
    q, k = torch.randn(2, 1, 1, 1, config.head_width, generator=torch.Generator().manual_seed(3))

    def score(i: int, j: int) -> float:
        at_every_place = (x.expand(1, 16, 1, -1) for x in (q, k))
        turned_q, turned_k = (rotary(x, slice(16))[0, :, 0] for x in at_every_place)  # (16, D)
        return float(turned_q[i] @ turned_k[j])

    assert score(9, 4) == pytest.approx(score(12, 7), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_angles_are_exact_far_out_too() -> None:
    config = gpt_config(context_length=4096, n_embd=16)
    turns = np.outer(np.arange(4096), config.rope_theta ** (-np.arange(0, 8, 2) / 8))
    cos, sin = np.cos(turns), np.sin(turns)
    for name, halves in (("cos", (cos, cos)), ("sin", (-sin, sin))):
        expected = torch.from_numpy(np.concatenate(halves, axis=1)[:, None]).float()
        torch.testing.assert_close(Rotary(config).get_buffer(name), expected, rtol=0, atol=1e-7)


def test_turning_keeps_the_precision() -> None:
    x = torch.ones(1, 16, 2, 16, dtype=torch.bfloat16)
    assert Rotary(gpt_config())(x, slice(16)).dtype == torch.bfloat16


def test_rotary_keeps_lengths() -> None:
    rotary, x = Rotary(gpt_config()), torch.randn(2, 16, 2, 16)
    torch.testing.assert_close(rotary(x, slice(x.shape[1])).norm(dim=-1), x.norm(dim=-1))


def test_learned_positions_tell_places_apart() -> None:
    model = gpt(**SHAPES["gpt2"])
    same = model(torch.full((1, 16), 5))
    assert not torch.allclose(same[0, 0], same[0, 9])


def test_rmsnorm_gives_unit_size_and_layernorm_zero_mean_too() -> None:
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(2)) * 7 + 3
    rms = Norm(32, gpt_config(), "rmsnorm")(x)
    layer = Norm(32, gpt_config(), "layernorm")(x)
    torch.testing.assert_close(rms.square().mean(-1), torch.ones(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.square().mean(-1), torch.ones(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.mean(-1), torch.zeros(4), rtol=0, atol=1e-5)


def test_a_norm_hands_on_what_matrices_read_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for kind in ("rmsnorm", "layernorm"):
            assert Norm(32, gpt_config(), kind)(torch.ones(2, 32)).dtype == torch.bfloat16


def test_rmsnorm_of_half_precision_is_computed_in_full() -> None:
    norm = Norm(32, gpt_config(), "rmsnorm")
    torch.nn.init.normal_(norm.weight, 1, 0.5, generator=torch.Generator().manual_seed(1))
    half = torch.randn(4, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    exact = norm(half.float())
    assert torch.equal(norm(half), exact)
    with torch.no_grad():  # where PyTorch does it, which hands it on in half precision
        torch.testing.assert_close(norm(half), exact.bfloat16(), rtol=0.02, atol=0.02)


def test_dropout_acts_in_training_only() -> None:
    model = gpt(dropout=0.5)
    assert torch.equal(model(TOKENS), model(TOKENS))
    model.train()
    assert not torch.equal(model(TOKENS), model(TOKENS))


def test_dropout_acts_on_attention_and_on_both_branches() -> None:
    model = gpt(dropout=0.5)
    block: Any = model.blocks[0]
    x = torch.randn(1, 16, 32)
    for train in (True, False):
        model.train(train)
        same = torch.equal(block.attention(x, model.rotary), block.attention(x, model.rotary))
        assert same is not train
    model.train()
    for silent in (block.mlp.down, block.attention.output):  # one branch at a time
        kept = silent.weight.detach().clone()
        silent.weight.data.zero_()
        block.attention.dropout = 0.0
        assert not torch.equal(block(x, model.rotary), block(x, model.rotary))
        silent.weight.data.copy_(kept)


def test_tied_embeddings_are_one_matrix() -> None:
    tied, untied = fresh(tie_embeddings=True), fresh()
    assert tied.head.weight is tied.token_embedding.weight
    assert count_parameters(untied) - count_parameters(tied) == 61 * 32


def test_grouped_heads_save_parameters() -> None:
    full, grouped = fresh(n_head=4), fresh(n_head=4, n_kv_head=1)
    assert count_parameters(full) - count_parameters(grouped) == 2 * 2 * 32 * 24  # layers × (k, v) × C × (32 − 8)


def test_flops_count_the_matrices_and_half_of_attention(shape: dict[str, Any]) -> None:
    model = fresh(**shape)
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    config = model.config
    attention = config.n_layer * 2 * 2 * (config.n_head * config.head_width) * config.context_length / 2  # q·k and ·v
    assert training_flops_per_token(config) == 6 * matrices + 3 * attention


def test_bf16_autocast_stays_close_to_fp32(shape: dict[str, Any]) -> None:
    model = gpt(**shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(TOKENS)
    exact = model(TOKENS)
    assert (low.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
