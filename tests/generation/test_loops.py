"""The parts of the compiled loops, each beside what PyTorch computes, at sizes that fit no block and at extremes."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tinygpt.generation.cpu import functions, loops
from tinygpt.generation.cpu.functions import jit
from tinygpt.generation.cpu.layout import GELU, GELU_EXACT, HEAD, fields, located
from tinygpt.model.quantization import Int8Linear

RNG = np.random.default_rng(1)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(layer: Any, many: bool) -> loops.Model:
    """A model that is a single layer."""
    addresses, sizes = located(fields(HEAD, [layer]), 1)
    like, room = np.empty(0, dtype=layer.weight.detach().numpy().dtype), np.full(2000, np.nan, dtype=np.float32)
    return loops.Model(addresses, sizes, like, 1, 1, 1, 1, 1, False, GELU, 1e-5, many, room)


@pytest.mark.parametrize("outputs", [1, 7, 8, 21])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("int8", [False, True])
def test_products_of_any_number_of_tokens_are_those_of_pytorch(outputs: int, bias: bool, int8: bool) -> None:
    torch.manual_seed(outputs)
    linear = nn.Linear(37, outputs, bias=bias)
    layer = Int8Linear(copy.deepcopy(linear)) if int8 else linear
    for tokens in (1, 2, 4, 5, 8, 9, 16, 21):
        for many in (False, True):
            x, out = numbers(tokens, 37), np.full((tokens, outputs), np.nan, dtype=np.float32)
            loops.product(model_of(layer, many), HEAD, 0, x, out)
            torch.testing.assert_close(torch.from_numpy(out), layer(torch.from_numpy(x)).detach(), rtol=1e-5, atol=1e-5)


@jit
def applied(kind: int, x: Any) -> Any:
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = functions.exp(x[i]) if kind == 0 else functions.tanh(x[i]) if kind == 1 else functions.erf(x[i])
    return out


@pytest.mark.parametrize(("kind", "reference"), [(0, torch.exp), (1, torch.tanh), (2, torch.erf)])
def test_exp_tanh_and_erf_are_those_of_pytorch(kind: int, reference: Any) -> None:
    x = np.concatenate([np.linspace(-87, 88, 100_001), np.linspace(-4, 4, 100_001), [0.0]]).astype(np.float32)
    expected = reference(torch.from_numpy(x).double()).float()
    found = torch.from_numpy(applied(kind, x))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=5e-7)


def test_exp_has_bounds_and_passes_nan_on() -> None:
    extremes = applied(0, np.array([-1e30, -np.inf, np.nan, np.inf], dtype=np.float32))
    assert (extremes[:2] < 1e-37).all()
    assert np.isnan(extremes[2])
    assert extremes[3] > 1e38


@pytest.mark.parametrize(("kind", "form"), [(GELU, "tanh"), (GELU_EXACT, "none")])
def test_gelu_is_that_of_pytorch(kind: int, form: str) -> None:
    up = numbers(3, 50) * 4
    expected = nn.functional.gelu(torch.from_numpy(up.copy()), approximate=form)
    functions.activate(np.empty_like(up), up, kind)
    torch.testing.assert_close(torch.from_numpy(up), expected, rtol=1e-5, atol=1e-6)
