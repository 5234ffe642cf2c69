"""What the lessons' exercises begin as, and the tests that say when they are done; tinygpt/exercising.py uses both.

`same` is what the tests compare with: it says what differs in a sentence.
"""

from typing import Any

import torch
from torch import Tensor


def same(call: str, yours: Any, expected: Any) -> None:
    """AssertionError, in a sentence, where the result of `call` is not `expected`; numbers may be off by rounding."""
    assert yours is not None, f"{call} gave nothing back; does the function end with `return`?"
    if isinstance(expected, tuple):
        count = len(yours) if isinstance(yours, tuple) else None
        assert count == len(expected), f"{call} should give back {len(expected)} things, with commas between them"
        for number, (one, other) in enumerate(zip(yours, expected, strict=True)):
            same(f"{call}[{number}]", one, other)
    elif isinstance(expected, Tensor):
        same_tensors(call, yours, expected)
    elif isinstance(expected, float) or (isinstance(expected, list) and all(isinstance(x, float) for x in expected)):
        try:
            numbers = torch.as_tensor(yours, dtype=torch.float64)
        except (TypeError, ValueError):
            raise AssertionError(f"{call} should be {shown(expected)}; yours is {shown(yours)}") from None
        same_tensors(call, numbers, torch.tensor(expected, dtype=torch.float64))
    else:
        assert yours == expected, f"{call} should be {shown(expected)}; yours is {shown(yours)}"


def same_tensors(call: str, yours: Any, expected: Tensor) -> None:
    assert isinstance(yours, Tensor), f"{call} should be a tensor; yours is a {type(yours).__name__}"
    shapes = tuple(expected.shape), tuple(yours.shape)
    assert shapes[0] == shapes[1], f"{call} should be of shape {shapes[0]}; yours is of shape {shapes[1]}"
    close = torch.allclose(yours.double(), expected.double(), rtol=1e-4, atol=1e-5)
    assert close, f"{call} should be {shown(expected)}; yours is {shown(yours)}"


def shown(value: Any) -> str:
    """A value on one line, and not a long one."""
    if isinstance(value, Tensor):
        value = [round(number, 4) for number in value.flatten().tolist()]
    text = " ".join(f"{value:.6g}".split()) if isinstance(value, float) else repr(value)
    return text if len(text) <= 100 else text[:97] + "…"
