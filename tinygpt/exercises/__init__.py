"""What the lessons' exercises begin as, and the tests that say when they are done; tinygpt/exercises/runner.py uses
both.

`same` is what the tests compare with: it says what differs in a sentence. None of it is an `assert`, which `python -O`
leaves out.
"""

from typing import Any

import torch
from torch import Tensor

SHOWN = 100  # characters of a value in a message


def need(holds: bool, sentence: str) -> None:
    """AssertionError with the sentence, where something does not hold."""
    if not holds:
        raise AssertionError(sentence)


def same(call: str, yours: Any, expected: Any) -> None:
    """AssertionError, in a sentence, where the result of `call` is not `expected`; numbers may be off by rounding."""
    need(yours is not None, f"{call} gave nothing back; does the function end with `return`?")
    if isinstance(expected, tuple):
        found = f"{len(yours)}" if isinstance(yours, tuple) else f"a {type(yours).__name__}"
        need(
            found == f"{len(expected)}",
            f"{call} should give back {len(expected)} things, with commas; yours {found}",
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
    """Whole numbers, strings, lists and dictionaries: a long one is shown from where it differs."""
    if type(yours) is type(expected) and len(repr(expected)) > SHOWN:
        if isinstance(expected, dict):
            for key in [*expected, *yours]:
                assert_alike(f"{call}[{key!r}]", yours.get(key), expected.get(key))
        if isinstance(expected, str | list) and yours != expected:
            pairs = enumerate(zip(yours, expected, strict=False))
            place = next((i for i, (one, other) in pairs if one != other), min(len(yours), len(expected)))
            call, yours, expected = f"{call}[{place}:]", yours[place:], expected[place:]
    need(type(yours) is not Tensor, f"{call} should be {shown(expected)}; yours is a tensor")
    need(bool(yours == expected), f"{call} should be {shown(expected)}; yours is {shown(yours)}")


def same_tensors(call: str, yours: Any, expected: Tensor) -> None:
    need(isinstance(yours, Tensor), f"{call} should be a tensor; yours is a {type(yours).__name__}")
    shapes = tuple(expected.shape), tuple(yours.shape)
    need(shapes[0] == shapes[1], f"{call} should be of shape {shapes[0]}; yours is of shape {shapes[1]}")
    right = torch.isclose(yours.double(), expected.double(), rtol=1e-4, atol=1e-5)
    if expected.numel() > 12 and not right.all():
        place = tuple((~right).nonzero()[0].tolist())
        call, yours, expected = f"{call}{list(place)}", yours[place], expected[place]
        call = f"{int(right.sum())} of {right.numel()} numbers are right; {call}"
    need(bool(right.all()), f"{call} should be {shown(expected)}; yours is {shown(yours)}")


def shown(value: Any) -> str:
    """A value on one line, and not a long one."""
    if isinstance(value, Tensor):
        value = rounded(value.tolist())
    text = " ".join(f"{value:.6g}".split()) if isinstance(value, float) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "…"


def rounded(numbers: Any) -> Any:
    """Numbers in lists in lists, with four places each."""
    return [rounded(number) for number in numbers] if isinstance(numbers, list) else round(numbers, 4)
