"""What a model sees of a conversation: `fitting(tokenizer, messages_of(system, turns), context, max_new_tokens)`.

The same for the terminal, the page and the server, so that their answers are the same.
"""

from collections.abc import Iterable

from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, Messages, check_conversation


def messages_of(system: str, turns: Iterable[tuple[str, str]], last: str | None = None) -> list[Message]:
    """The system message if it is not blank; each question with its answer, unless that is blank; the last question."""
    pairs = [("system", system)] if system.strip() else []
    for said, answer in turns:
        if answer.strip():
            pairs += [("user", said), ("assistant", answer)]
    if last is not None:
        pairs.append(("user", last))
    return [{"role": role, "content": content} for role, content in pairs]


def fitting(tokenizer: Tokenizer, messages: Messages, context: int, max_new_tokens: int) -> tuple[list[Message], int]:
    """The messages whose prompt leaves enough of the context for an answer, and how many were left out.

    An answer gets max_new_tokens, or half of the context if that is less. The system message and the last message stay;
    of the turns between them the oldest are left out, a question with its answer. ValueError if the messages are no
    conversation, or if those two alone do not fit. Each message is encoded once, so time is linear in their number.
    """
    try:
        given = list(check_conversation(messages, answered=False))
    except ValueError as problem:
        raise ValueError(f"This is no conversation to answer: {problem}. Correct it.") from None
    room = min(max_new_tokens, context // 2)
    sizes = [len(tokenizer.encode_messages([message])[0]) - 1 for message in given]  # without <|endoftext|>
    size = sum(sizes) + 2  # with <|endoftext|> and the last <|assistant|>
    first = start = int(given[0]["role"] == "system")
    while size + room > context:
        if start == len(given) - 1:
            what = "The system message and the last message take" if first else "The message takes"
            raise ValueError(
                f"{what} {size} tokens, and this model sees {context}, of which {room} are kept for its answer. Write "
                "less."
            )
        size -= sum(sizes[start : start + 2])
        start += 2
    return given[:first] + given[start:], start - first
