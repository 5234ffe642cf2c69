"""A chat with a model, in turns: `chat = open_chat(model, tokenizer, …)`, then `for piece in chat.say("ROMEO:")`.

A base model continues a text that both write (`Chat`); the prompt of each answer is the whole text so far, of which the
model sees the part that fits its context (windows.window_start), so `tinygpt generate PROMPT --seed …` writes the same.
A style is a template for what the user writes. A model with a chat template answers messages (`MessageChat`); the
prompt is the system message and as many of the last turns as fit. `retry`, `undo`, `set` and `save` are methods. Left
out: the terminal (repl.py).
"""

import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinygpt.chat.context import fitting, messages_of
from tinygpt.chat.conversation import Conversation, Turn
from tinygpt.files.text import write_text
from tinygpt.generation import generate
from tinygpt.generation.samples import Record, record
from tinygpt.generation.sampling import Sampling
from tinygpt.generation.stream import split_at_stop
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

HEADING = r"\n\n[A-Z][^\n:]{0,40}:\n"  # of the next speech in a play: a name on a line of its own
INTEGER_SETTINGS, MAX_SEED = {"top-k": 20, "length": 200, "seed": 7}, 2**62  # name → example
SETTINGS = {"temperature": 0.8, "top-p": 0.95, "min-p": 0.05, "repetition-penalty": 1.1} | INTEGER_SETTINGS


@dataclass(frozen=True)
class Style:
    """A template for what the user writes, and where an answer ends."""

    name: str = "plain"
    before: str = ""
    after: str = ""
    stop: str = ""  # a regular expression before which the answer ends; empty: never

    def wrap(self, words: str, text: str) -> str:
        """The words in this style, to be appended to `text`; newlines at the border are not doubled. Empty words give
        an empty string: the model continues the text as it is.
        """
        if not words:
            return ""
        opening = self.before if text else self.before.lstrip("\n")
        while opening.startswith("\n") and text.endswith("\n"):
            opening, text = opening[1:], text[:-1]
        return opening + words + self.after


def style(asked: str) -> Style:
    """Parse a style; ValueError, which lists the styles, for an unknown one.

    plain: the text as written. play [NAME[, YOURS]]: the words are a speech by YOURS, and NAME (or whom the model
    chooses) speaks next. Any template with {}: the words replace {}, and the answer ends where the template would start
    again.
    """
    if "{}" in asked:
        before, _, after = asked.partition("{}")
        start = before.strip()
        return Style(asked, "\n" + before if start else before, after, r"\n\s*" + re.escape(start) if start else "")
    kind, _, names = asked.partition(" ")
    if kind == "plain" and not names:
        return Style()
    if kind == "play":
        name, _, yours = (part.strip() for part in names.partition(","))
        return Style(asked, f"\n\n{yours or 'YOU'}:\n", f"\n\n{name}:\n" if name else "\n\n", HEADING)
    raise ValueError(f"{asked!r} is no style; there are plain, play NAME, and your own, such as Q: {{}}\\nA:")


@dataclass(kw_only=True)
class ChatTurn(Turn):
    """A turn and its settings."""

    seed: int
    sampling: Sampling
    length: int
    style: Style
    ended: str = "interrupted"  # the reason; or: length, style, end of text
    prompt: generate.Prompt = ""  # what the model saw
    left_out: int = 0  # earlier messages that did not fit into the context


class Chat(Conversation[ChatTurn]):
    """A conversation with a model. hashes: of model, tokenizer and text (model_folder.hashes)."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, hashes: dict[str, Any], sampling: Sampling, length: int, seed: int
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.hashes = model, tokenizer, hashes
        self.sampling, self.length, self.seed = sampling, length, seed  # length: the most tokens of an answer
        self.style = Style()

    def say(self, words: str) -> Generator[str]:
        """Stream the model's answer. If the iterator is closed early, the text yielded so far is kept.

        ValueError for words that the tokenizer cannot encode; then nothing is kept.
        """
        yield from self._answer(self._turn(self.style.wrap(words, self.text), self.style), self.turns, self.add)

    def retry(self) -> Generator[str]:
        """Replace the last answer by another one, with the next seed and the current settings.

        If the new answer is empty, the last one stays.
        """
        turn = self.last
        self.seed = min(turn.seed + 1, MAX_SEED)
        yield from self._answer(self._turn(turn.said, turn.style), self.turns[:-1], self.replace_last)

    def set(self, setting: str, value: str) -> None:
        """Change one of SETTINGS. ValueError for a value that it cannot have."""
        name = setting.replace("-", "_")
        try:
            number = int(value) if setting in INTEGER_SETTINGS else float(value)
        except ValueError:
            kind = "a whole number" if setting in INTEGER_SETTINGS else "a number"
            raise ValueError(f"{name} is {value!r}; it must be {kind}, such as {SETTINGS[setting]}.") from None
        if setting in ("length", "seed"):
            least, most = (1, 2**31) if setting == "length" else (0, MAX_SEED)
            if not least <= number <= most:
                raise ValueError(f"{name} is {value}; it must be {least} or more, and at most {most}.")
            setattr(self, name, number)
        else:
            changed: dict[str, Any] = {name: number}
            self.sampling = replace(self.sampling, **changed)

    def settings(self) -> str:
        """All settings, as text."""
        values = asdict(self.sampling) | {"length": self.length, "seed": self.seed}
        return ", ".join(
            f"{name.replace('_', '-')} {value if isinstance(value, int) else format(value, '.12g')}"
            for name, value in values.items()
        )

    def records(self) -> Iterator[Record]:
        """A record for each turn, as in `tinygpt generate --json`, with its style and the reason why it ended."""
        for turn in self.turns:
            completion = generate.Completion(turn.prompt, turn.answer, turn.seed)
            yield record(completion, turn.sampling, turn.length, self.hashes) | {
                "style": turn.style.name,
                "ended": turn.ended,
            }

    def prompt_of(self, turn: ChatTurn, before: Sequence[ChatTurn]) -> generate.Prompt:
        """The prompt of a turn that follows others."""
        return "".join(earlier.said + earlier.answer for earlier in before) + turn.said

    def save(self, file: Path, overwrite: bool = False) -> None:
        """Write the records as JSON lines, atomically. ValueError without turns, for a folder or an existing file."""
        if not self.turns:
            raise ValueError("There is nothing to save: nobody has written anything yet.")
        if file.is_dir():
            raise ValueError(f"{file} is a folder; name a file.")
        if file.exists() and not overwrite:
            raise ValueError(f"{file} is there already. /save! {file} replaces it.")
        write_text(file, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in self.records()))

    def _turn(self, said: str, style: Style) -> ChatTurn:
        return ChatTurn(said=said, seed=self.seed, sampling=self.sampling, length=self.length, style=style)

    def _answer(self, turn: ChatTurn, before: Sequence[ChatTurn], keep: Callable[[ChatTurn], None]) -> Generator[str]:
        settings: dict[str, Any] = {"max_new_tokens": turn.length, "seed": turn.seed, **asdict(turn.sampling)}
        prompt, pending = self.prompt_of(turn, before), ""
        turn.prompt = prompt
        try:
            for count, piece in enumerate(generate.stream(self.model, self.tokenizer, prompt, **settings)):
                if not count:
                    keep(turn)  # not earlier, since encoding the prompt may raise
                certain, pending, matched = split_at_stop(pending + piece, turn.style.stop)
                turn.answer += certain
                yield certain
                if matched:
                    turn.ended = "style"
                    return
            turn.answer += pending
            ids = generate.prompt_ids(self.tokenizer, prompt)
            most = generate.most_new_tokens(self.model, prompt, ids, turn.length)
            turn.ended = "length" if count == most else "end of text"  # one piece per token, then the rest
        finally:
            self.settle()
        yield pending


class MessageChat(Chat):
    """A chat with a model that has a chat template; `system` says who it is, empty for nobody in particular."""

    system = ""

    def prompt_of(self, turn: ChatTurn, before: Sequence[ChatTurn]) -> generate.Prompt:
        """The system message, the turns that fit, and what is said in this one; `turn.left_out` counts the others."""
        messages = messages_of(self.system, ((earlier.said, earlier.answer) for earlier in before), turn.said)
        context = self.model.config.context_length
        kept, turn.left_out = fitting(self.tokenizer, messages, context, turn.length)
        return kept

    @property
    def text(self) -> str:
        return "".join(f"you: {turn.said}\nmodel: {turn.answer}\n" for turn in self.turns)


def open_chat(
    model: GPT, tokenizer: Tokenizer, hashes: dict[str, Any], sampling: Sampling, length: int, seed: int
) -> Chat:
    """A chat of the kind that this model can hold."""
    kind = MessageChat if tokenizer.has_roles else Chat
    return kind(model, tokenizer, hashes, sampling, length, seed)
