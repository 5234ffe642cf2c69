"""Validation of what visitors send: texts, messages, numbers, generation requests.

Values come from outside and may have any type and size. One that is not allowed raises ValueError with a sentence for
the visitor. `command(request, folder)` is the `tinygpt` command that writes the same text.
"""

import re
import shlex
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.config import SAMPLING
from tinygpt.files.paths import Paths
from tinygpt.generation.generate import Prompt
from tinygpt.generation.sampling import Sampling
from tinygpt.tokenizer.chat_template import END, ROLE_TOKENS, ROLES, Message, check_conversation

MAX_CHARACTERS = 20_000  # of one text, and of a whole conversation
MAX_NEW_TOKENS = 1000  # of one answer
MAX_SEED = 2**31 - 1  # JavaScript holds it exactly
MAX_SHOWN = 200  # characters of a prompt in a shown command
SPELLED = re.compile("(" + "|".join(map(re.escape, ROLE_TOKENS)) + ")")  # the role tokens in a text
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
DEFAULTS: dict[str, Any] = {  # of `tinygpt generate` and `tinygpt chat`
    **asdict(Sampling()),
    "max_new_tokens": 200,
    "seed": 1337,
    "model": Paths().model,
}


@dataclass(frozen=True)
class GenerationRequest:
    """A validated request for one answer."""

    model: str  # its name in the model registry
    prompt: Prompt  # a text to continue, or all messages of a chat
    sampling: Sampling
    max_new_tokens: int
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)  # set to end generation


def make_request(prompt: Prompt, model: object, settings: Sequence[object], size: int) -> GenerationRequest:
    """Validate all parts of a request; settings in the order of LABELS. size: of the whole conversation, characters."""
    if size > MAX_CHARACTERS:
        raise ValueError(
            f"The whole text would have {size:,} characters; the page accepts {MAX_CHARACTERS:,}. Shorten it, "
            "undo some turns, or press Clear."
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


def message(value: object) -> str:
    """A message, without white space at its ends; it must not be empty."""
    said = text(value).strip()
    if not said:
        raise ValueError("The message is empty. Write something first, or click an example.")
    return said


def conversation(written: str) -> list[Message] | None:
    """The messages of a text that spells a conversation, as chat_template.render does; None for any other text.

    ValueError, in a sentence, for a text that begins with a role token but is no conversation.
    """
    before, *pieces = SPELLED.split(written)
    if before.strip() or not pieces:
        return None
    roles, contents, ends, between = (pieces[place::4] for place in range(4))
    names = {token: role for role, token in ROLES.items()}
    messages = [{"role": names.get(one, one), "content": said} for one, said in zip(roles, contents, strict=False)]
    try:
        if ends != [END] * len(roles) or any(map(str.strip, between)):
            raise ValueError(f"each message begins with its role and ends with {END}")
        check_conversation(messages, answered=messages[-1]["role"] == "assistant")
    except ValueError as problem:
        raise ValueError(
            f"The text begins like a conversation, but is none: {problem}. Correct it, or remove the role tokens."
        ) from None
    return messages


def command(request: GenerationRequest, folder: Path) -> str:
    """The `tinygpt` command that writes the same text; "" if a shell could not show the prompt well.

    That is: over MAX_SHOWN characters, a backslash, a control character, "-" alone, which means standard input; and in
    a chat, several turns, several lines, or a message that `tinygpt chat` would take for a command.
    """
    settings = asdict(request.sampling) | {
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
        "model": folder,
    }
    changed = [(name, settings[name]) for name, default in DEFAULTS.items() if settings[name] != default]
    options = [word for name, value in changed for word in ("--" + name.replace("_", "-"), str(value))]
    if not isinstance(request.prompt, str):
        return _chat_command(request.prompt, options)
    prompt = request.prompt
    if prompt == "-" or not _is_showable(prompt.replace("\n", " ")):
        return ""
    ended = ["--"] if prompt.startswith("-") else []
    return shlex.join(["tinygpt", "generate", *options, *ended, prompt.replace("\n", "\\n")])


def _chat_command(messages: Sequence[Message], options: list[str]) -> str:
    *before, last = (one["content"] for one in messages)
    turns = [one for one in messages if one["role"] != "system"]
    if len(turns) > 1 or last[0] in "-/" or not all(map(_is_showable, (*before, last))):
        return ""
    system = ["--system", *before] if before else []
    return f"{shlex.join(['echo', last])} | {shlex.join(['tinygpt', 'chat', *options, *system])}"


def _is_showable(words: str) -> bool:
    return len(words) <= MAX_SHOWN and "\\" not in words and words.isprintable()
