"""Conversations to learn answering from: `for name, conversation in conversations(params.download)`.

A mixture of generated tasks (tasks.py), one to three questions in a conversation, and of exchanges between two
characters of Shakespeare's plays, in which the system message names the one who answers. The held-out items of a task
follow tasks.is_held_out; the held-out plays are those that `download.source: shakespeare` holds out with the same
validation_fraction, so that a base model has not read them either. Nothing depends on params.yaml's seed.
"""

import random
from collections.abc import Iterator

from tinygpt import config
from tinygpt.data.conversations import Conversation
from tinygpt.data.corpus import held_out_documents
from tinygpt.data.sources import shakespeare, tasks
from tinygpt.tokenizer.chat_template import Message

QUESTIONS = 3  # the most in a conversation
LONGEST = 160  # characters of a speech: with its answer, and the system message, it fits into a context of 128 tokens
HELD_OUT = "held-out/"  # the beginning of a held-out document's name
Named = tuple[str, Conversation]


def conversations(section: config.Download) -> Iterator[Named]:
    """The conversations of `section.mixture`, training and held-out, each part in random order.

    Raises ValueError or ConnectionError if the plays cannot be fetched.
    """
    numbers = section.mixture.model_dump()
    plays = numbers.pop("plays")
    found = list(_tasks(numbers, section.validation_fraction))
    if plays:
        found += _exchanges(plays, section.validation_fraction)
    random.Random(0).shuffle(found)
    return iter(found)


def is_held_out(name: str) -> bool:
    """Whether the conversation of this name is held out."""
    return name.startswith(HELD_OUT)


def _tasks(numbers: dict[str, int], fraction: float) -> Iterator[Named]:
    """Conversations with `numbers` questions of each kind; as many as `fraction` of them are held out, in addition."""
    for held_out in (False, True):
        r = random.Random(int(held_out))
        items = [
            item
            for kind, number in numbers.items()
            for item in tasks.items(kind, round(number * fraction) if held_out else number, held_out, seed=0)
        ]
        r.shuffle(items)
        start = 0
        while start < len(items):
            several = items[start : start + r.randint(1, QUESTIONS)]
            turns = [turn for item in several for turn in (("user", item.question), ("assistant", item.answer))]
            yield _named(f"tasks/{start}", held_out, turns)
            start += len(several)


def _exchanges(number: int, fraction: float) -> list[Named]:
    """At most `number` exchanges of the plays for training, and of the held-out plays in proportion."""
    plays = {name: text for name, (text,) in shakespeare.plays()}
    held_out = held_out_documents(plays, fraction)
    found: dict[bool, list[Named]] = {False: [], True: []}
    for name, text in plays.items():
        held = name in held_out
        for place, exchange in enumerate(_short(text)):
            for first in (0, 1):  # either of the two may be the one who answers
                if turns := _turns(exchange[first:]):
                    found[held].append(_named(f"plays/{name}/{place}/{first}", held, turns))
    kept = min(number, len(found[False]))
    sizes = {False: kept, True: max(1, round(len(found[True]) * kept / len(found[False])))}
    return [each for held, every in found.items() for each in random.Random(1).sample(every, sizes[held])]


def _turns(speeches: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Speeches (character, words) of two who alternate → turns (role, words): the second is the assistant, and has the
    last word. Empty for fewer than two speeches.
    """
    pairs = [(first[1], second[1]) for first, second in zip(speeches[::2], speeches[1::2], strict=False)]
    turns = [turn for asked, answered in pairs for turn in (("user", asked), ("assistant", answered))]
    return [("system", f"You are {speeches[1][0]}."), *turns] if turns else []


def _short(play: str) -> Iterator[list[tuple[str, str]]]:
    """The exchanges of a play, without long speeches: they end there, and begin again after it."""
    for exchange in shakespeare.exchanges(play):
        short: list[tuple[str, str]] = []
        for speech in [*exchange, ("", " " * (LONGEST + 1))]:
            if len(speech[1]) <= LONGEST:
                short.append(speech)
            elif short:
                if len(short) > 1:
                    yield short
                short = []


def _named(name: str, held_out: bool, turns: list[tuple[str, str]]) -> Named:
    messages: list[Message] = [{"role": role, "content": words} for role, words in turns]
    return f"{HELD_OUT if held_out else ''}{name}", Conversation(messages)
