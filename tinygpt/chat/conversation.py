"""A conversation, in the terminal and on the page: one text that grows by turns, with undo and retry.

`Conversation[Turn]()` has `add`, `undo`, `replace_last` and `settle`. Subclasses of `Turn` may have more fields.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar


@dataclass
class Turn:
    """What the user added to the text, and how the model continued it."""

    said: str
    answer: str = ""


AnyTurn = TypeVar("AnyTurn", bound=Turn)


class Conversation(Generic[AnyTurn]):
    """One text, grown by turns."""

    def __init__(self) -> None:
        self.turns: list[AnyTurn] = []
        self._replaced: AnyTurn | None = None  # the turn that the last one replaces, until `settle`

    @property
    def text(self) -> str:
        """All turns, joined."""
        return "".join(turn.said + turn.answer for turn in self.turns)

    @property
    def last(self) -> AnyTurn:
        """The last turn. ValueError if there is none."""
        if not self.turns:
            raise ValueError("There is nothing to take back or to try again yet: nobody has written anything.")
        return self.turns[-1]

    def add(self, turn: AnyTurn) -> None:
        """Append a turn."""
        self.turns.append(turn)

    def undo(self) -> AnyTurn:
        """Remove and return the last turn; ValueError as `last`."""
        last = self.last
        self.turns.pop()
        return last

    def replace_last(self, turn: AnyTurn) -> None:
        """Replace the last turn, which is kept until `settle`; ValueError as `last`."""
        self._replaced, self.turns[-1] = self.last, turn

    def settle(self) -> None:
        """Call this when an answer has ended. If it is empty, the turn that it replaced is restored."""
        if self._replaced is not None and not self.turns[-1].answer:
            self.turns[-1] = self._replaced
        self._replaced = None

    @property
    def replacing(self) -> bool:
        """Whether the last turn replaces another and is not settled yet."""
        return self._replaced is not None

    def clear(self) -> None:
        """Remove all turns."""
        self.turns.clear()
        self._replaced = None
