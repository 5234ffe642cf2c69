"""A chat with a model: you write a text, the model continues it, in turns.

`chat = Chat(model, tokenizer, …)`, then `for piece in chat.say("ROMEO:")` streams an answer; `retry`, `undo`, `set` and
`save` are methods. The whole text so far is the prompt of each answer, cut to the model's context as everywhere
(windows.window_start), so that `tinygpt generate PROMPT --seed …` writes the same. Left out: the terminal
(repl.py); and roles and instructions, of which a base model knows nothing: a style says what stands around a line.
"""

import json
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinygpt.chat.conversation import Conversation, Turn
from tinygpt.files.text import write_text
from tinygpt.generation import generate
from tinygpt.generation.samples import Record, record
from tinygpt.generation.sampling import Sampling
from tinygpt.generation.stream import split_at_stop
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

HEADING = r"\n\n[A-Z][^\n:]{0,40}:\n"  # of the next speech in a play: a name on a line of its own
WHOLE, HIGHEST_SEED = {"top-k": 20, "length": 200, "seed": 7}, 2**62
SETTINGS = {"temperature": 0.8, "top-p": 0.95, "min-p": 0.05, "repetition-penalty": 1.1} | WHOLE  # name → example


@dataclass(frozen=True)
class Style:
    """What stands around your words, and where an answer ends."""

    name: str = "plain"
    before: str = ""
    after: str = ""
    stop: str = ""  # a regular expression; the answer ends before it. Empty: never

    def around(self, words: str, text: str) -> str:
        """Your words as they follow `text`; a new line is not doubled. No words ask the model to go on as it stands."""
        if not words:
            return ""
        opening = self.before if text else self.before.lstrip("\n")
        while opening.startswith("\n") and text.endswith("\n"):
            opening, text = opening[1:], text[:-1]
        return opening + words + self.after


def style(asked: str) -> Style:
    """The style of a line that people type. ValueError says which there are.

    plain: the text as you write it. play [NAME[, YOURS]]: your words are a speech, and NAME (or whom the model chooses)
    speaks next. Anything with {} in it: your words in its place; the answer ends where the template would begin again.
    """
    if "{}" in asked:
        before, _, after = asked.partition("{}")
        again = before.strip()
        return Style(asked, "\n" + before if again else before, after, r"\n\s*" + re.escape(again) if again else "")
    kind, _, names = asked.partition(" ")
    if kind == "plain" and not names:
        return Style()
    if kind == "play":
        name, _, yours = (part.strip() for part in names.partition(","))
        return Style(asked, f"\n\n{yours or 'YOU'}:\n", f"\n\n{name}:\n" if name else "\n\n", HEADING)
    raise ValueError(f"{asked!r} is no style; there are plain, play NAME, and your own, such as Q: {{}}\\nA:")


@dataclass(kw_only=True)
class ChatTurn(Turn):
    """A turn, and how it was asked for."""

    seed: int
    sampling: Sampling
    length: int
    style: Style
    ended: str = "interrupted"  # or at: length, style, end of text


class Chat(Conversation[ChatTurn]):
    """A conversation with a model. hashes: those that trace the model (model_folder.hashes)."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, hashes: dict[str, Any], sampling: Sampling, length: int, seed: int
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.hashes = model, tokenizer, hashes
        self.sampling, self.length, self.seed = sampling, length, seed  # length: tokens of an answer, at most
        self.style = Style()

    def say(self, words: str) -> Generator[str]:
        """The model's answer as it comes. However early the iterator is left, what it gave is kept.

        ValueError, and nothing is kept, for words that the tokenizer cannot encode.
        """
        said = self.style.around(words, self.text)
        yield from self._answer(self._turn(said, self.style), self.text + said, self.add)

    def retry(self) -> Generator[str]:
        """Another answer to the same words, in place of the last one: with the next seed and the settings of now.

        Where nothing comes, the last one stays.
        """
        turn = self.last
        self.seed = min(turn.seed + 1, HIGHEST_SEED)
        yield from self._answer(self._turn(turn.said, turn.style), self.prompt, self.replace_last)

    def set(self, setting: str, value: str) -> None:
        """Turn one of SETTINGS. ValueError, a sentence, for what it cannot be."""
        name = setting.replace("-", "_")
        try:
            number = int(value) if setting in WHOLE else float(value)
        except ValueError:
            kind = "a whole number" if setting in WHOLE else "a number"
            raise ValueError(f"{name} is {value!r}; it must be {kind}, such as {SETTINGS[setting]}.") from None
        if setting in ("length", "seed"):
            least, most = (1, 2**31) if setting == "length" else (0, HIGHEST_SEED)
            if not least <= number <= most:
                raise ValueError(f"{name} is {value}; it must be {least} or more, and at most {most}.")
            setattr(self, name, number)
        else:
            changed: dict[str, Any] = {name: number}
            self.sampling = replace(self.sampling, **changed)

    def settings(self) -> str:
        """All settings in a line or two."""
        values = asdict(self.sampling) | {"length": self.length, "seed": self.seed}
        return ", ".join(
            f"{name.replace('_', '-')} {value if isinstance(value, int) else format(value, '.12g')}"
            for name, value in values.items()
        )

    def records(self) -> Iterator[Record]:
        """A record a turn, like those of `tinygpt generate --json`, with its style and why it ended."""
        text = ""
        for turn in self.turns:
            text += turn.said
            made = generate.Completion(text, turn.answer, turn.seed)
            yield record(made, turn.sampling, turn.length, self.hashes) | {
                "style": turn.style.name,
                "ended": turn.ended,
            }
            text += turn.answer

    def save(self, file: Path, replacing: bool = False) -> None:
        """Write the records as JSON lines, whole or not at all. ValueError where something is in the way."""
        if not self.turns:
            raise ValueError("There is nothing to save: nobody has written anything yet.")
        if file.is_dir():
            raise ValueError(f"{file} is a folder; name a file.")
        if file.exists() and not replacing:
            raise ValueError(f"{file} is there already. /save! {file} replaces it.")
        write_text(file, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in self.records()))

    def _turn(self, said: str, style: Style) -> ChatTurn:
        return ChatTurn(said=said, seed=self.seed, sampling=self.sampling, length=self.length, style=style)

    def _answer(self, turn: ChatTurn, prompt: str, keep: Callable[[ChatTurn], None]) -> Generator[str]:
        settings: dict[str, Any] = {"max_new_tokens": turn.length, "seed": turn.seed, **asdict(turn.sampling)}
        waiting = ""
        try:
            for count, piece in enumerate(generate.stream(self.model, self.tokenizer, prompt, **settings)):
                if not count:
                    keep(turn)  # only now: a text that cannot be encoded was refused before
                sure, waiting, met = split_at_stop(waiting + piece, turn.style.stop)
                turn.answer += sure
                yield sure
                if met:
                    turn.ended = "style"
                    return
            turn.answer += waiting
            turn.ended = "length" if count == turn.length else "end of text"  # a piece a token, and one for the rest
        finally:
            self.settle()
        yield waiting
