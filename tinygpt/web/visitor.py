"""The conversations of one open page: `Visitor()` has the text of the Write tab and, in `chat`, that of the Chat tab.

Both grow by turns (chat/conversation.py) and know the prompt of each turn: of a text, all of it so far; of a chat, the
messages that fit into the context. service.py generates the answers. This module does not use Gradio.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinygpt.chat.context import messages_of
from tinygpt.chat.conversation import Conversation, Turn
from tinygpt.generation.generate import Prompt
from tinygpt.generation.sampling import Sampling
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, render
from tinygpt.web.requests import MAX_CHARACTERS, GenerationRequest, conversation, message, text

UNCHANGED = Sampling(temperature=1.0, top_p=1.0)  # the model's own distribution


@dataclass(frozen=True)
class TokenPrediction:
    """A token of a text, and what the model predicted in its place."""

    token: int
    probability: float  # of the token, at temperature 1
    rank: int  # of the token in the vocabulary; 1: the likeliest
    alternatives: tuple[tuple[int, float, float], ...] = ()  # the likeliest: id, probability, and after the settings
    sampled: float | None = None  # the token's probability after the sampling settings; None for a scored text
    counted: bool = True  # False: of a scored conversation, what the assistant does not write


@dataclass
class WebTurn(Turn):
    """A turn, and what its token details need."""

    model: str = ""  # its name in the registry
    version: str = ""  # of the model (LoadedModel.version)
    sampling: Sampling = UNCHANGED
    ids: list[int] = field(default_factory=list)  # of the finished answer
    tokens: list[TokenPrediction] = field(default_factory=list)  # one for each id
    tokenizer: Tokenizer | None = None  # kept, because the model of this name may change before the turn is shown again
    system: str = ""  # the system message of a chat; empty for none
    left_out: int = 0  # earlier messages of a chat that did not fit into the context


class WebConversation(Conversation[WebTurn]):
    """A text that grows by turns, and the request for its next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.request: GenerationRequest | None = None  # queued or running
        self.generating = False  # whether the request is running
        self.message = ""  # how the last request ended, or why the stored conversation was refused
        self.command = ""  # prints the same text in a terminal
        self.restored = False  # whether the conversation in the browser's storage has been read

    def validated(self, said: object) -> str:
        """What a visitor wrote, from outside; ValueError if it is not allowed."""
        return text(said)

    def prompt_of(self, turn: WebTurn, before: Sequence[WebTurn]) -> Prompt:
        """The prompt of a turn that follows others."""
        return "".join(earlier.said + earlier.answer for earlier in before) + turn.said

    def require_idle(self) -> None:
        """ValueError, in a sentence, during a request."""
        if self.request:
            raise ValueError("An answer is already being written. Wait for it, or press Stop.")

    def settle(self) -> None:
        """End the request; see Conversation.settle."""
        super().settle()
        self.request, self.generating = None, False

    def cancel(self) -> None:
        """End generation at its next token."""
        if self.request:
            self.request.stop.set()


class WebChat(WebConversation):
    """Messages, which a model with a chat template answers."""

    can_answer = True  # whether the chosen model has a chat template

    def validated(self, said: object) -> str:
        """A message; ValueError if it is empty, too."""
        return message(said)

    def prompt_of(self, turn: WebTurn, before: Sequence[WebTurn]) -> Prompt:
        """The system message, earlier messages without the `turn.left_out` oldest, and the message of this turn."""
        messages, first = chat_messages(turn.system, before), int(bool(turn.system))
        del messages[first : first + turn.left_out]
        return [*messages, {"role": "user", "content": turn.said}]

    @property
    def text(self) -> str:
        """The conversation with its role tokens spelled out; of a long one, the last turns, in MAX_CHARACTERS.

        Empty if that would read as another conversation, because somebody wrote a role token.
        """
        system = self.turns[-1].system if self.turns else ""
        for first in range(len(self.turns)):
            messages = chat_messages(system, self.turns[first:])
            shown = render(messages)
            if len(shown) <= MAX_CHARACTERS:
                return shown if reads_as(shown, messages) else ""
        return ""


class Visitor(WebConversation):
    """The conversations of one open page: its own, and `chat`."""

    def __init__(self) -> None:
        super().__init__()
        self.example = ""  # the example text shown last
        self.chat = WebChat()


def answered(turn: WebTurn) -> bool:
    """Whether a turn has an answer; one without is not part of later prompts."""
    return bool(turn.answer.strip())


def chat_messages(system: str, turns: Sequence[WebTurn]) -> list[Message]:
    """The messages of turns, as `tinygpt chat` has them."""
    return messages_of(system, ((turn.said, turn.answer) for turn in turns))


def reads_as(written: str, messages: list[Message]) -> bool:
    """Whether a text that spells a conversation is read as these messages."""
    with contextlib.suppress(ValueError):
        return conversation(written) == messages
    return False
