"""Each kernel computes what the line of PyTorch that it stands for computes.

What each saves, measured by `python -m benchmark.kernels`, is said at its test.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.model.kernels import (
    causal_attention,
    dropout,
    naive_attention,
    rms_norm,
    to_autocast_dtype,
    zero_embedding,
)
from tinygpt.scratch import layers


# gain: 1.1 times as fast (middle half 0.9 to 1.4) on two Zen 5 cores, hardly more than the noise
def test_rms_norm_has_the_value_and_the_gradients_that_pytorch_finds() -> None:
    random = torch.Generator().manual_seed(4)
    x, gradient = torch.randn(2, 3, 5, 32, generator=random).unbind()
    weight = (1 + 0.5 * torch.randn(32, generator=random)).requires_grad_()
    values: list[tuple[Tensor, ...]] = []
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: rms_norm(x, weight, 0.1),
        lambda x: F.rms_norm(x, (32,), weight, 0.1),
    ]
    for function in functions:
        leaf, weight.grad = x.clone().requires_grad_(), None
        y = function(leaf)
        y.backward(gradient)
        assert leaf.grad is not None
        assert weight.grad is not None
        values.append((y.detach(), leaf.grad, weight.grad))
    torch.testing.assert_close(values[0], values[1])
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, weight, 0.1), values[0][0])


# gain: in bf16 3.5 times as fast (3.3 to 3.7), in fp32 with dropout 1.6 times (1.5 to 1.8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_written_out_equals_the_fused_one(heads: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(4)
    q = torch.randn(2, 4, 16, 8, generator=random).to(dtype)
    k, v = (torch.randn(2, heads, 16, 8, generator=random).to(dtype) for _ in range(2))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    near = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(naive_attention(q, k, v), expected, rtol=near, atol=near)
    torch.testing.assert_close(causal_attention(q, k, v), expected, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_acts_on_attention_weights(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 1, 2, 16, 16).to(dtype).unbind()
    assert not torch.equal(causal_attention(q, k, v, 0.5), causal_attention(q, k, v, 0.5))
    assert torch.equal(causal_attention(q, k, v), causal_attention(q, k, v))


# gain: 3.2 times as fast (3.2 to 3.3)
@pytest.mark.parametrize("share", [0.0003, 0.05, 0.5])
def test_dropout_keeps_its_share_and_the_mean_and_no_number_tells_of_its_neighbours(share: float) -> None:
    torch.manual_seed(3)
    n = 1_000_001  # not a multiple of the numbers that one draw serves
    kept = dropout(torch.ones(n), share)
    gone = (kept == 0).double()
    assert abs(gone.mean() - share) < 5 * (share / n) ** 0.5
    assert kept.max() == pytest.approx(1 / (1 - share))
    for away in (1, 2, 3, 4):
        both = (gone[away:] * gone[:-away]).mean()
        assert abs(both - share**2) < 5 * (share**2 / n) ** 0.5


@pytest.mark.parametrize("drops", [dropout, layers.dropout])
def test_dropout_of_next_to_nothing_keeps_next_to_all(drops: Callable[[Tensor, float, bool], Tensor]) -> None:
    assert (drops(torch.ones(100_000), 1e-6, True) == 0).sum() < 20


def test_a_table_of_zeros_is_learned_as_any_embedding() -> None:
    table = zero_embedding(5, 3)
    assert table.weight.requires_grad
    assert torch.equal(table(torch.tensor([4])), torch.zeros(1, 3))


def test_the_type_of_autocast_is_taken_where_it_is_on() -> None:
    x = torch.ones(2)
    assert to_autocast_dtype(x) is x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert to_autocast_dtype(x).dtype == torch.bfloat16
