"""Questions with a known answer: of generated tasks, and which of four replies truly follows in a held-out text.

`generated("add", 200)` → questions of data/sources/tasks.py; `next_utterances(path, 400, fits)` → questions from the
held-out split: a speech of a play, and the true next one among three others of the same play. In a corpus of
conversations, these are a user's message and the assistant's answers; without plays, the others are from any other
conversation. A question is asked as text, for a model that completes texts, or in messages, for a chat model.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tinygpt.data.conversations import has_conversations, read_conversations
from tinygpt.data.corpus import read_rows
from tinygpt.data.sources import shakespeare, tasks
from tinygpt.tokenizer.chat_template import Message, Messages

SEED = 1  # of generated items and of the choice of replies: all models get the same questions
OTHERS = 3  # replies beside the true one
LONGEST = 300  # characters of a reply, and of what it replies to; longer ones do not fit into a small context
MOST = 100_000  # replies read from a corpus, which keeps memory bounded


class Question(NamedTuple):
    """What comes before an answer, and the options, the true one first."""

    text: str  # for a text model; empty where the options are whole sentences
    messages: Messages  # for a chat model; empty likewise
    options: tuple[str, ...]


class Reply(NamedTuple):
    """A reply in its place."""

    exchange: str  # what it is part of
    group: str  # where others may come from: a play, or "" for the whole corpus
    text: str
    messages: Messages
    words: str


def generated(kind: str, number: int) -> list[Question]:
    """Held-out items of a kind of data/sources/tasks.py."""
    return [
        Question(f"{item.question}\n", [_message("user", item.question)], (item.answer, *item.wrong))
        if item.question
        else Question("", [], (item.answer, *item.wrong))
        for item in tasks.items(kind, number, held_out=True, seed=SEED)
    ]


def next_utterances(path: Path, number: int, fits: Callable[[Question], bool]) -> list[Question]:
    """At most `number` questions from a held-out corpus file, those for which `fits`; none if it has no dialogue.

    Raises FileNotFoundError if there is no file.
    """
    r = random.Random(SEED)
    replies = list(itertools.islice(_replies(path), MOST))
    if any(reply.group for reply in replies):
        replies = [reply for reply in replies if reply.group]  # plays only
    groups: dict[str, list[Reply]] = {}
    for reply in replies:
        groups.setdefault(reply.group, []).append(reply)
    found = (_question(reply, groups[reply.group], r) for reply in r.sample(replies, len(replies)))
    return list(itertools.islice((question for question in found if question and fits(question)), number))


def _question(reply: Reply, group: list[Reply], r: random.Random) -> Question | None:
    """The reply among OTHERS of its group; None if the group has too few."""
    others = sorted({other.words for other in group if other.exchange != reply.exchange} - {reply.words})
    if len(others) < OTHERS:
        return None
    return Question(reply.text, reply.messages, (reply.words, *r.sample(others, OTHERS)))


def _replies(path: Path) -> Iterator[Reply]:
    """All short replies to short messages."""
    rows = _of_conversations(path) if path.is_file() and has_conversations(path) else _of_texts(path)
    return (r for r in rows if len(r.words) <= LONGEST and len(r.messages[-1]["content"]) <= LONGEST)


def _of_conversations(path: Path) -> Iterator[Reply]:
    """Every answer, after the system message and the user's last one."""
    for name, messages in read_conversations(path):
        play = re.match(r"held-out/plays/([^/]+)/", name)
        system = [message for message in messages[:1] if message["role"] == "system"]
        speaker = re.fullmatch(r"You are (.+)\.", system[0]["content"]) if system else None
        heading = f"{speaker[1]}:\n" if speaker else ""
        for user, answer in itertools.pairwise(messages):
            if answer["role"] == "assistant":
                text = f"{user['content']}\n\n{heading}"
                exchange = name.rpartition("/")[0] if play else name  # the same speeches, with either one answering
                yield Reply(exchange, play[1] if play else "", text, [*system, user], answer["content"])


def _of_texts(path: Path) -> Iterator[Reply]:
    """Every speech after another, in documents formatted as plays."""
    for name, rows in itertools.groupby(read_rows(path), key=lambda row: row[0]):
        for number, exchange in enumerate(shakespeare.exchanges("".join(text for _, text in rows))):
            for (speaker, words), (answerer, answer) in itertools.pairwise(exchange):
                text = f"{speaker}:\n{words}\n\n{answerer}:\n"
                messages = [_message("system", f"You are {answerer}."), _message("user", words)]
                yield Reply(f"{name}/{number}", name, text, messages, answer)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
