"""Validation of what visitors send: texts, numbers, generation requests.

All of it comes from outside and may be of any type and size; what does not fit is refused in a sentence (ValueError).
`command(order, folder)` is what prints the same text in a terminal.
"""

import shlex
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.files.paths import Paths
from tinygpt.generation.sampling import Sampling

CHARACTERS = 20_000  # of a text, and of all that a visitor and the model wrote together
NEW_TOKENS = 1000  # of one answer
DEFAULTS: dict[str, Any] = {
    **asdict(Sampling()),
    "max_new_tokens": 200,
    "seed": 1337,
    "model": Paths().model,
}  # of `generate`
BOUNDS = {  # what the page's sliders allow, ends included: lowest, highest, whole numbers only
    "temperature": (0, 2, False),
    "top-k": (0, 200, True),
    "top-p": (0.01, 1, False),
    "min-p": (0, 0.5, False),
    "max new tokens": (1, NEW_TOKENS, True),
    "seed": (0, 2**31 - 1, True),
}


@dataclass(frozen=True)
class GenerationRequest:
    """What is to be written."""

    model: str
    prompt: str
    sampling: Sampling
    length: int
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)


def make_request(prompt: str, model: object, settings: Sequence[object]) -> GenerationRequest:
    """An order whose every part has been checked."""
    if len(prompt) > CHARACTERS:
        raise ValueError(
            f"That makes {len(prompt):,} characters; the page takes {CHARACTERS:,} in all. Shorten it, or press Clear."
        )
    values = [number(name, value, *BOUNDS[name]) for name, value in zip(BOUNDS, settings, strict=True)]
    temperature, top_k, top_p, min_p, length, seed = values
    return GenerationRequest(
        str(model), prompt, Sampling(temperature, int(top_k), top_p, min_p), int(length), int(seed)
    )


def number(name: str, value: object, lowest: float, highest: float, whole: bool) -> float:
    """A number from outside; ValueError, in a sentence, where it is none or out of bounds."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest
    if not fits or (whole and value != int(value)):  # type: ignore[call-overload]
        kind = "a whole number" if whole else "a number"
        shown = repr(value)
        shown = shown if len(shown) <= 30 else shown[:29] + "…"
        raise ValueError(f"{titled(name)} is {shown}; it must be {kind} from {lowest} to {highest}.")
    return value  # type: ignore[return-value]


def titled(name: str) -> str:
    """A setting's name as its label, and at the beginning of a sentence."""
    return name[0].upper() + name[1:]


def text(value: object) -> str:
    """A text from outside, which may be empty; ValueError, in a sentence, where it is none, or too long."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("That is not text.")
    if len(value) > CHARACTERS:
        raise ValueError(f"That text has {len(value):,} characters; the page takes {CHARACTERS:,}. Shorten it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("That text holds half a character (a lone surrogate); type it again.") from None
    return value


def something(value: object) -> str:
    """A text from outside that is not empty."""
    if not text(value):
        raise ValueError("There is no text to look at yet. Paste some first.")
    return text(value)


def command(order: GenerationRequest, folder: Path) -> str:
    """What prints the same text in a terminal; "" where a prompt is too long, or odd, for a shell's line."""
    if (
        order.prompt == "-"
        or len(order.prompt) > 200
        or "\\" in order.prompt
        or not order.prompt.replace("\n", " ").isprintable()
    ):
        return ""
    chosen = asdict(order.sampling) | {"max_new_tokens": order.length, "seed": order.seed, "model": folder}
    words = ["tinygpt", "generate"]
    for name, value in DEFAULTS.items():
        if chosen[name] != value:
            words += ["--" + name.replace("_", "-"), str(chosen[name])]
    return shlex.join([*words, *(["--"] if order.prompt.startswith("-") else []), order.prompt.replace("\n", "\\n")])
