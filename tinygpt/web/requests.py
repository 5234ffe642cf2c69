"""Validation of what visitors send: texts, numbers, generation requests.

Values come from outside and may have any type and size. One that is not allowed raises ValueError with a sentence for
the visitor. `command(request, folder)` is the `tinygpt generate` command that writes the same text.
"""

import shlex
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.config import SAMPLING
from tinygpt.files.paths import Paths
from tinygpt.generation.sampling import Sampling

MAX_CHARACTERS = 20_000  # of one text, and of a whole conversation
MAX_NEW_TOKENS = 1000  # of one answer
MAX_SEED = 2**31 - 1  # JavaScript holds it exactly
# Name → lowest, highest and step of a slider. A slider needs two ends, so these span the useful values only; which
# values are allowed is up to config.SAMPLING.
SLIDERS = {
    "temperature": (0, 2, 0.05),
    "top_k": (0, 200, 1),
    "top_p": (0.01, 1, 0.01),
    "min_p": (0, 0.5, 0.01),
}
LABELS = {  # of the page's settings, in the order in which it sends them
    "temperature": "Temperature",
    "top_k": "Top-k",
    "top_p": "Top-p",
    "min_p": "Min-p",
    "max_new_tokens": "Max new tokens",
    "seed": "Seed",
}
DEFAULTS: dict[str, Any] = {  # of `tinygpt generate`
    **asdict(Sampling()),
    "max_new_tokens": 200,
    "seed": 1337,
    "model": Paths().model,
}


@dataclass(frozen=True)
class GenerationRequest:
    """A validated request for one answer."""

    model: str  # its name in the model registry
    prompt: str
    sampling: Sampling
    max_new_tokens: int
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)  # set to end generation


def make_request(prompt: str, model: object, settings: Sequence[object]) -> GenerationRequest:
    """Validate all parts of a request; settings in the order of LABELS."""
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(
            f"The whole text would have {len(prompt):,} characters; the page accepts {MAX_CHARACTERS:,}. Shorten it, "
            "or press Clear."
        )
    *sampling, new_tokens, seed = settings
    return GenerationRequest(
        str(model),
        prompt,
        parse_sampling(sampling),
        whole_number(LABELS["max_new_tokens"], new_tokens, 1, MAX_NEW_TOKENS),
        whole_number(LABELS["seed"], seed, 0, MAX_SEED),
    )


def parse_sampling(values: Sequence[object]) -> Sampling:
    """The sampling settings that config.SAMPLING allows; values in the order of SLIDERS."""
    settings: dict[str, Any] = dict(zip(SLIDERS, values, strict=True))
    for name, value in settings.items():
        if not (is_number(value) and SAMPLING[name].fits(value)):
            kind = "a whole number" if name == "top_k" else "a number"
            raise ValueError(f"{LABELS[name]} is {shortened(value)}; it must be {kind}, {SAMPLING[name].allowed}.")
    return Sampling(**settings)


def whole_number(label: str, value: object, lowest: int, highest: int) -> int:
    """An integer from lowest to highest, both included."""
    if not (isinstance(value, int) and is_number(value) and lowest <= value <= highest):
        raise ValueError(f"{label} is {shortened(value)}; it must be a whole number from {lowest} to {highest}.")
    return value


def is_number(value: object) -> bool:
    """Whether a value is a number; Python counts booleans as integers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shortened(value: object) -> str:
    """The repr of a value, at most 30 characters of it."""
    shown = repr(value)
    return shown if len(shown) <= 30 else shown[:29] + "…"


def text(value: object) -> str:
    """A text, which may be empty; None, as Gradio sends it, is the empty text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("The value is not text. Reload the page and type it again.")
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f"The text has {len(value):,} characters; the page accepts {MAX_CHARACTERS:,}. Shorten it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("The text contains half a character (a lone surrogate). Type it again.") from None
    return value


def nonempty_text(value: object) -> str:
    """A text of at least one character."""
    if not text(value):
        raise ValueError("The text is empty. Paste some text first.")
    return text(value)


def command(request: GenerationRequest, folder: Path) -> str:
    """The `tinygpt generate` command that writes the same text.

    "" if a shell could not show the prompt well: over 200 characters, a backslash, a control character, or "-" alone,
    which means standard input.
    """
    prompt = request.prompt
    if prompt == "-" or len(prompt) > 200 or "\\" in prompt or not prompt.replace("\n", " ").isprintable():
        return ""
    settings = asdict(request.sampling) | {
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
        "model": folder,
    }
    words = ["tinygpt", "generate"]
    for name, default in DEFAULTS.items():
        if settings[name] != default:
            words += ["--" + name.replace("_", "-"), str(settings[name])]
    return shlex.join([*words, *(["--"] if prompt.startswith("-") else []), prompt.replace("\n", "\\n")])
