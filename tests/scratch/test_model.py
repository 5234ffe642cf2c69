"""The reference model gives the logits, losses and gradients of the fast one, from the same weights."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import SHAPES, gpt, gpt_config
from tinygpt.evaluation.metrics import Evaluation
from tinygpt.model import gpt as fast
from tinygpt.model.loss import cross_entropy
from tinygpt.scratch import attention, backward, embedding, layers, loss
from tinygpt.scratch.gpt import GPT

TOKENS = torch.randint(0, 61, (3, 16), generator=torch.Generator().manual_seed(0))


def pair(**changes: Any) -> tuple[fast.GPT, GPT]:
    """A model with random weights, and its reference implementation with the same."""
    model = gpt(**changes)
    ref = GPT(model.config)
    ref.load_state_dict(model.state_dict())
    return model, ref.eval()


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# the whole model


def test_the_same_weights_give_the_same_scores(shape: dict[str, Any]) -> None:
    model, ref = pair(**shape)
    for tokens in (TOKENS, TOKENS[:1, :1], TOKENS[:, :7]):
        torch.testing.assert_close(ref(tokens), model(tokens), rtol=1e-4, atol=1e-5)


def test_the_same_weights_give_the_same_gradients(shape: dict[str, Any]) -> None:
    model, ref = pair(**shape)
    cross_entropy(model(TOKENS[:, :-1]), TOKENS[:, 1:], "mean").backward()
    loss.cross_entropy(ref(TOKENS[:, :-1]), TOKENS[:, 1:]).backward()
    found, expected = ({name: p.grad for name, p in one.named_parameters()} for one in (ref, model))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_weights_go_from_either_to_the_other(shape: dict[str, Any]) -> None:
    model, ref = pair(**shape)
    other = fast.GPT(model.config)
    other.load_state_dict(ref.state_dict())
    assert list(other.state_dict()) == list(model.state_dict()) == list(ref.state_dict())
    assert torch.equal(other(TOKENS), model(TOKENS))
    assert (ref.head.weight is ref.token_embedding.weight) == model.config.tie_embeddings


@pytest.mark.parametrize("width", [32, 64])  # at the second a tied embedding starts smaller than another
def test_the_same_seed_gives_the_same_starting_weights(shape: dict[str, Any], width: int) -> None:
    config = gpt_config(**shape | {"n_embd": width})
    model, ref = fast.GPT(config), GPT(config)
    for one in (model, ref):
        one.initialise(torch.Generator().manual_seed(5))
    assert all(torch.equal(ref.state_dict()[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_dropout_gives_the_same_logits_on_average(name: str) -> None:
    draws, means, variances = 400, [], []
    for one in pair(**SHAPES[name], dropout=0.3):
        torch.manual_seed(4)
        logits = one.train()(TOKENS[:1].repeat(draws, 1)).detach()  # (draws, T, V)
        means.append(logits.mean(0))
        variances.append(logits.var(0))
        assert not torch.allclose(logits[0], one.eval()(TOKENS[:1])[0])
    error = ((variances[0] + variances[1]) / draws).sqrt()
    assert ((means[1] - means[0]).abs() < 5 * error).all()
    torch.testing.assert_close(variances[1].mean(), variances[0].mean(), rtol=0.05, atol=0.0)


def test_more_tokens_than_the_context_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit into a context of 16"):
        GPT(gpt_config())(torch.zeros(1, 17, dtype=torch.int64))


# embedding


def test_looking_up_a_row_is_a_product_with_a_one_hot_vector() -> None:
    table = random(61, 8)
    assert torch.equal(embedding.look_up(table, TOKENS), F.embedding(TOKENS, table))
    assert torch.equal(embedding.look_up_by_product(table, TOKENS), F.embedding(TOKENS, table))
    assert torch.equal(embedding.one_hot(TOKENS, 61), F.one_hot(TOKENS, 61).float())


@pytest.mark.parametrize("theta", [100.0, 10000.0])
def test_turning_is_that_of_the_fast_model(theta: float) -> None:
    x = random(2, 16, 3, 16)
    rotary = fast.Rotary(gpt_config(rope_theta=theta))
    torch.testing.assert_close(embedding.rotate(x, theta), rotary(x, slice(16)), rtol=1e-5, atol=1e-6)


# layers


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_each_layer_is_pytorchs(scale: float) -> None:
    x, weight, bias, matrix = scale * random(2, 5, 8), random(8, seed=2), random(8, seed=3), random(4, 8, seed=4)
    pairs = {
        "softmax": (layers.softmax(x), F.softmax(x, -1)),
        "layer_norm": (layers.layer_norm(x, weight, bias, 0.1), F.layer_norm(x, (8,), weight, bias, 0.1)),
        "rms_norm": (layers.rms_norm(x, weight, 0.1), F.rms_norm(x, (8,), weight, 0.1)),
        "gelu": (layers.gelu(x), F.gelu(x, approximate="tanh")),
        "gelu_exact": (layers.gelu_exact(x), F.gelu(x)),
        "silu": (layers.silu(x), F.silu(x)),
        "linear": (layers.linear(x, matrix, bias[:4]), F.linear(x, matrix, bias[:4])),
    }
    for name, (found, expected) in pairs.items():
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * scale), name


def test_softmax_takes_scores_that_exp_does_not() -> None:
    scores = torch.tensor([1e4, 1e4 - 1, -math.inf])
    torch.testing.assert_close(layers.softmax(scores), F.softmax(scores, -1))


def test_dropout_keeps_its_share_and_the_mean() -> None:
    torch.manual_seed(1)
    x = layers.dropout(torch.ones(100_000), 0.3, training=True)
    assert x.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert x.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(layers.dropout(x, 0.3, training=False), x)


# attention


def matrices(heads: int) -> list[attention.Head]:
    """Query, key and value of each head: (16, 8) each."""
    wq, wk, wv = random(3, heads, 16, 8, seed=6).unbind() if heads else ()
    return list(zip(wq, wk, wv, strict=True))


def test_the_first_steps_are_pytorchs_attention() -> None:
    x, (head,) = random(9, 16), matrices(1)
    q, k, v = ((x @ matrix)[None] for matrix in head)
    without = F.scaled_dot_product_attention(x[None], x[None], x[None], scale=1.0)[0]
    torch.testing.assert_close(attention.attention_without_weights(x), without)
    torch.testing.assert_close(attention.attention(x, head), F.scaled_dot_product_attention(q, k, v)[0])
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]
    torch.testing.assert_close(attention.causal_head(x, head), causal)


def test_heads_in_a_loop_are_those_computed_at_once() -> None:
    config = gpt_config(n_embd=16, n_head=3, head_dim=8, position="learned", qk_norm=False)
    at_once, heads, output = attention.MultiHeadAttention(config), matrices(3), random(24, 16, seed=7)
    names = ("query", "key", "value")
    weights = {name: torch.cat([head[i].T for head in heads]) for i, name in enumerate(names)} | {"output": output.T}
    at_once.load_state_dict({f"{name}.weight": weight for name, weight in weights.items()})
    x = random(9, 16)
    torch.testing.assert_close(attention.heads_in_a_loop(x, heads, output), at_once(x[None])[0], rtol=1e-4, atol=1e-4)


def test_the_last_step_is_the_fast_models_attention(shape: dict[str, Any]) -> None:
    model, ref = pair(**shape)
    x = random(2, 16, 32)
    found, expected = (list[Any](one.blocks)[0].attention for one in (ref, model))
    torch.testing.assert_close(found(x), expected(x, model.rotary), rtol=1e-4, atol=1e-5)


# loss


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_the_loss_is_pytorchs_also_for_scores_that_exp_does_not_take(scale: float) -> None:
    logits = scale * random(3, 16, 61)
    torch.testing.assert_close(loss.log_softmax(logits), F.log_softmax(logits, -1))
    for reduction in ("none", "sum", "mean"):
        expected = cross_entropy(logits, TOKENS, reduction)
        torch.testing.assert_close(loss.cross_entropy(logits, TOKENS, reduction), expected)


def test_the_loss_is_computed_in_fp32() -> None:
    logits = random(3, 16, 61).bfloat16()
    expected = cross_entropy(logits, TOKENS, "none")
    torch.testing.assert_close(loss.cross_entropy(logits, TOKENS, "none"), expected)
    assert loss.cross_entropy(logits, TOKENS).dtype == torch.float32


def test_bits_per_byte_and_perplexity_are_those_of_the_evaluation() -> None:
    nats, sizes, nothing = np.array([40.0, 55.0]), np.array([30, 33]), np.zeros(2, dtype=np.int64)
    measured = Evaluation(nats, sizes, nothing, np.zeros(1), tokens=20)
    assert loss.bits_per_byte(95.0, 63) == pytest.approx(measured.bits_per_byte(63)[0])
    assert loss.perplexity(math.log(7)) == pytest.approx(7)


# backward


def gradients(value: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, leaves)


def test_the_output_layers_gradients_by_hand_are_autograds() -> None:
    x, weight = (random(n, 8, seed=n, dtype=torch.float64).requires_grad_() for n in (5, 11))
    targets = torch.tensor([3, 0, 10, 3, 7])
    value = backward.output_layer(x, weight, targets)
    torch.testing.assert_close(value, F.cross_entropy(x @ weight.T, targets))
    found = backward.output_layer_backward(x.detach(), weight.detach(), targets)
    torch.testing.assert_close(found, gradients(value, x, weight), rtol=1e-10, atol=1e-12)


def test_a_causal_heads_gradients_by_hand_are_autograds() -> None:
    leaves = [
        random(*size, seed=i, dtype=torch.float64).requires_grad_() for i, size in enumerate([(7, 6)] + 3 * [(6, 4)])
    ]
    doutput = random(7, 4, seed=9, dtype=torch.float64)
    x, wq, wk, wv = leaves
    expected = gradients((attention.causal_head(x, (wq, wk, wv)) * doutput).sum(), *leaves)
    with torch.no_grad():
        dx, dhead = backward.causal_head_backward(x, (wq, wk, wv), doutput)
    torch.testing.assert_close((dx, *dhead), expected, rtol=1e-10, atol=1e-12)
