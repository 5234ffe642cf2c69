"""Corpora of conversations: the same files as corpus.py writes, with a column `messages` instead of `text`.

`messages(record)` reads one conversation in any of the usual forms, `read_conversations(path)` a corpus of them. While
a corpus is written, a conversation is a row of JSON (`as_row`, `from_row`).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tinygpt.tokenizer.chat_template import Messages, answers, check_conversation

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema([("document", pa.string()), ("messages", pa.list_(MESSAGE))])
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class Conversation(NamedTuple):
    """A document that is a conversation."""

    messages: Messages


def messages(value: Any, place: str) -> Conversation:
    """A conversation from a record: `[{"role": …, "content": …}]`, or ShareGPT's `[{"from": …, "value": …}]`.

    Other keys are dropped. Raises ValueError, which names `place`, if it is none; see chat_template.check_conversation.
    """
    if isinstance(value, list | tuple):
        value = [_renamed(message) if isinstance(message, dict) else message for message in value]
    try:
        check_conversation(value)
    except ValueError as problem:
        raise ValueError(f"{place}: {problem}. Correct or remove it.") from None
    return Conversation([{"role": each["role"], "content": unix_line_ends(each["content"])} for each in value])


def unix_line_ends(text: str) -> str:
    """A text with \\n for \\r\\n and \\r."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_row(conversation: Conversation) -> str:
    """A conversation as one line of JSON."""
    return json.dumps(conversation.messages, ensure_ascii=False)


def from_row(row: str) -> Messages:
    """The messages that `as_row` wrote."""
    found: Messages = json.loads(row)
    return found


def plain(messages: Messages) -> str:
    """What is said in a conversation, a message per paragraph: for statistics on its text."""
    return "\n\n".join(message["content"] for message in messages) + "\n"


def has_conversations(path: Path) -> bool:
    """Whether a corpus file holds conversations. Raises FileNotFoundError if there is no file."""
    if not path.is_file():
        raise FileNotFoundError(f"No text at {path}. Run `dvc repro download`.")
    return "messages" in pq.read_schema(path).names


def read_conversations(path: Path) -> Iterator[tuple[str, Messages]]:
    """The conversations (document, messages) of a corpus file, in order, with one row group in memory at a time."""
    file = pq.ParquetFile(path)
    for number in range(file.num_row_groups):
        group = file.read_row_group(number, columns=["document", "messages"])
        yield from zip(group["document"].to_pylist(), group["messages"].to_pylist(), strict=True)


def answers_of(messages: Messages) -> str:
    """What the assistant says, a turn per line: what a model is scored on."""
    return "".join(answer + "\n" for answer in answers(messages))


def _renamed(message: dict[str, Any]) -> dict[str, Any]:
    """A message of ShareGPT under the usual names; any other as it is."""
    if "from" not in message or "role" in message:
        return message
    role = message["from"]
    return {"role": SHAREGPT.get(role, role) if isinstance(role, str) else role, "content": message.get("value")}
