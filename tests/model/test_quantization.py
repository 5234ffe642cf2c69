"""int8 weights: near those they were made of, read alike by PyTorch and by the loops, and never trained."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import gpt
from tinygpt.model.gpt import count_parameters
from tinygpt.model.quantization import Int8Linear, convert


def test_each_weight_is_within_half_a_step_of_what_it_was() -> None:
    torch.manual_seed(1)
    linear = nn.Linear(40, 30)
    with torch.no_grad():
        linear.weight[3] = 0
        linear.weight[5, 7] = 100
    layer = Int8Linear(linear)
    scale = layer.get_buffer("scale")[:, None]
    assert torch.equal(scale[:, 0] * 127, torch.where(torch.arange(30) == 3, 127, linear.weight.abs().amax(1)))
    assert ((layer.weight * scale - linear.weight).abs() <= scale / 2 * 1.00001).all()
    x = torch.randn(2, 5, 40)
    torch.testing.assert_close(layer(x), x @ (layer.weight * scale).T + linear.bias)


def test_nan_stays_nan() -> None:
    linear = nn.Linear(4, 2)
    with torch.no_grad():
        linear.weight[1, 2] = torch.nan
    assert torch.equal(Int8Linear(linear)(torch.ones(4)).isnan(), torch.tensor([False, True]))


def test_a_model_keeps_its_parameter_count_and_almost_its_logits(shape: dict[str, Any]) -> None:
    plain = gpt(**shape | {"tie_embeddings": False})
    model = convert(copy.deepcopy(plain), "int8")
    assert count_parameters(model) == count_parameters(plain)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    tokens = torch.tensor([[1, 4, 1, 5, 9, 2, 6]])
    difference = (model(tokens) - plain(tokens)).abs().max()
    assert 0 < difference < 0.03 * plain(tokens).abs().max()


def test_tied_embeddings_stay_float32() -> None:
    model = gpt(tie_embeddings=True)
    before = model.token_embedding.weight.detach().clone()
    convert(model, "int8")
    assert torch.equal(model.token_embedding.weight, before)
    assert model.head.weight.dtype == torch.int8


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_int8_changes_the_logits_and_fp32_does_not(weights: Any) -> None:
    model = gpt()
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens)
    assert torch.equal(convert(model, weights)(tokens), before) == (weights == "fp32")
