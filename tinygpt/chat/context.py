"""Messages in a small context: `fitting(tokenizer, messages, context, room)` leaves out the oldest turns."""

from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, Messages, check


def fitting(tokenizer: Tokenizer, messages: Messages, context: int, room: int) -> tuple[list[Message], int]:
    """The messages whose prompt leaves `room` tokens of the context for an answer, and how many were left out.

    The system message and the last message stay; of the turns between them the oldest are left out, a question with its
    answer. ValueError if the messages are no conversation, or if those two alone do not fit.
    """
    kept = list(check(messages, answered=False))
    first = int(kept[0]["role"] == "system")
    while (size := len(tokenizer.encode_messages(kept, add_generation_prompt=True)[0])) + room > context:
        if len(kept) == first + 1:
            what = "The system message and the last message take" if first else "The message takes"
            raise ValueError(
                f"{what} {size} tokens, and this model sees {context}, of which {room} are kept for its answer. Write "
                "less."
            )
        del kept[first : first + 2]
    return kept, len(messages) - len(kept)
