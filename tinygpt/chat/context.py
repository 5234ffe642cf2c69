"""Messages in a small context: `fitting(tokenizer, messages, context, room)` leaves out the oldest turns."""

from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, Messages, check


def fitting(tokenizer: Tokenizer, messages: Messages, context: int, room: int) -> tuple[list[Message], int]:
    """The messages whose prompt leaves `room` tokens of the context for an answer, and how many were left out.

    The system message and the last message stay; of the turns between them the oldest are left out, a question with its
    answer. ValueError if the messages are no conversation, or if those two alone do not fit. Each message is encoded
    once, so time is linear in their number.
    """
    given = list(check(messages, answered=False))
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
