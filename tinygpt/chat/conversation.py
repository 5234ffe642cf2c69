"""A conversation, in the terminal and on the page: one text that grows by turns, with undo and retry.

`Conversation[Turn]()` has `add`, `undo`, `replace_last` and `settle`; what a turn holds beside its two texts is for
those who make turns.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar


@dataclass
class Turn:
    """What was put after the text, and what the model wrote then."""

    said: str
    answer: str = ""


AnyTurn = TypeVar("AnyTurn", bound=Turn)


class Conversation(Generic[AnyTurn]):
    """One text, grown by turns."""

    def __init__(self) -> None:
        self.turns: list[AnyTurn] = []
        self._replaced: AnyTurn | None = None  # the turn in whose place the last one is, until it is settled

    @property
    def text(self) -> str:
        """All that was said and answered."""
        return "".join(turn.said + turn.answer for turn in self.turns)

    @property
    def prompt(self) -> str:
        """The text up to the last answer, which goes on from it."""
        return self.text.removesuffix(self.turns[-1].answer) if self.turns else ""

    @property
    def last(self) -> AnyTurn:
        """The last turn. ValueError, in a sentence, where there is none."""
        if not self.turns:
            raise ValueError("There is nothing to take back or to try again yet: nobody has written anything.")
        return self.turns[-1]

    def add(self, turn: AnyTurn) -> None:
        """One more turn."""
        self.turns.append(turn)

    def undo(self) -> AnyTurn:
        """Take back the last turn; ValueError as `last`."""
        last = self.last
        self.turns.pop()
        return last

    def replace_last(self, turn: AnyTurn) -> None:
        """Another answer in place of the last one, which is kept until `settle`; ValueError as `last`."""
        self._replaced, self.turns[-1] = self.last, turn

    def settle(self) -> None:
        """The last answer has ended; one of which nothing came gives its place back to the one that it replaced."""
        if self._replaced is not None and not self.turns[-1].answer:
            self.turns[-1] = self._replaced
        self._replaced = None

    @property
    def replacing(self) -> bool:
        """Whether the last turn is in the place of another, and not settled."""
        return self._replaced is not None

    def clear(self) -> None:
        """Begin anew."""
        self.turns.clear()
        self._replaced = None
