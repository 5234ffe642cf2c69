"""Stubs and tests of the lessons' exercises; tinygpt/exercises/runner.py copies and runs them.

The tests compare with `same`, whose errors describe the difference in a sentence. No `assert` is used, because
`python -O` removes it.
"""

from typing import Any

import torch
from torch import Tensor

SHOWN = 100  # characters of a value in a message


def need(holds: bool, sentence: str) -> None:
    """Raise AssertionError with the sentence unless `holds`."""
    if not holds:
        raise AssertionError(sentence)


def same(call: str, yours: Any, expected: Any) -> None:
    """Raise AssertionError if `yours`, the result of `call`, is not `expected`, up to rounding."""
    need(yours is not None, f"{call} returned None; does the function end with `return`?")
    if isinstance(expected, tuple):
        found = f"{len(yours)}" if isinstance(yours, tuple) else f"a {type(yours).__name__}"
        need(
            found == f"{len(expected)}",
            f"{call} should return {len(expected)} values; yours returned {found}",
        )
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
        assert_alike(call, yours, expected)


def assert_alike(call: str, yours: Any, expected: Any) -> None:
    """Compare integers, strings, lists and dictionaries; long ones are shown from the first difference."""
    if type(yours) is type(expected) and len(repr(expected)) > SHOWN:
        if isinstance(expected, dict):
            for key in [*expected, *yours]:
                assert_alike(f"{call}[{key!r}]", yours.get(key), expected.get(key))
        if isinstance(expected, str | list) and yours != expected:
            pairs = enumerate(zip(yours, expected, strict=False))
            start = next((i for i, (one, other) in pairs if one != other), min(len(yours), len(expected)))
            call, yours, expected = f"{call}[{start}:]", yours[start:], expected[start:]
    need(type(yours) is not Tensor, f"{call} should be {shown(expected)}; yours is a tensor")
    need(bool(yours == expected), f"{call} should be {shown(expected)}; yours is {shown(yours)}")


def same_tensors(call: str, yours: Any, expected: Tensor) -> None:
    need(isinstance(yours, Tensor), f"{call} should be a tensor; yours is a {type(yours).__name__}")
    shapes = tuple(expected.shape), tuple(yours.shape)
    need(shapes[0] == shapes[1], f"{call} should be of shape {shapes[0]}; yours is of shape {shapes[1]}")
    right = torch.isclose(yours.double(), expected.double(), rtol=1e-4, atol=1e-5)
    if expected.numel() > 12 and not right.all():
        index = tuple((~right).nonzero()[0].tolist())
        call, yours, expected = f"{call}{list(index)}", yours[index], expected[index]
        call = f"{int(right.sum())} of {right.numel()} numbers are right; {call}"
    need(bool(right.all()), f"{call} should be {shown(expected)}; yours is {shown(yours)}")


def shown(value: Any) -> str:
    """A value on one line, truncated."""
    if isinstance(value, Tensor):
        value = rounded(value.tolist())
    text = " ".join(f"{value:.6g}".split()) if isinstance(value, float) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "…"


def rounded(numbers: Any) -> Any:
    """Nested lists of numbers, rounded to four decimals."""
    return [rounded(number) for number in numbers] if isinstance(numbers, list) else round(numbers, 4)
