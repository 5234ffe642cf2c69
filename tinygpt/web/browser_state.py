"""A conversation as JSON in the browser's storage, so that it survives reloading the page.

`to_json(turns)` serializes it and `from_json(value)` reads it back; `chat_to_json` and `chat_from_json` do so with a
chat. Browsers are not trusted: one wrong type, value or size, and the whole conversation is refused.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tinygpt.web.requests import MAX_NEW_TOKENS, SLIDERS, parse_sampling
from tinygpt.web.visitor import WebTurn

MAX_BYTES = 2**17  # half of the largest request (middleware.MAX_BODY); the other half is for the new text
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class StoredTurn(BaseModel):
    """One turn. The two texts are shown; the other fields reproduce the token probabilities."""

    model_config = ConfigDict(strict=True, extra="forbid")

    written: str
    continued: str
    model: str
    version: str
    settings: Annotated[list[int | float], Field(max_length=len(SLIDERS))]  # in the order of SLIDERS
    ids: Annotated[list[TokenId], Field(max_length=MAX_NEW_TOKENS)]

    def turn(self) -> WebTurn:
        """ValueError for a missing setting, or one that is not allowed."""
        sampling = parse_sampling(self.settings)
        return WebTurn(self.written, self.continued, self.model, self.version, sampling, self.ids)


AnyStored = TypeVar("AnyStored", bound=StoredTurn)


class StoredChatTurn(StoredTurn):
    """One turn of a chat."""

    system: str | None  # None: as in the turn before, so that a long one is stored once
    left_out: Annotated[int, Field(ge=0, lt=2**31)]


STORED_TURNS, STORED_CHAT = TypeAdapter(list[StoredTurn]), TypeAdapter(list[StoredChatTurn])


def to_json(turns: Sequence[WebTurn]) -> list[dict[str, Any]]:
    """The turns as JSON of at most MAX_BYTES. The oldest turns lose their token ids first; [] if that is not enough."""
    return _limited([_stored(turn) for turn in turns])


def chat_to_json(turns: Sequence[WebTurn]) -> list[dict[str, Any]]:
    """As `to_json`, for a chat."""
    before = [None, *(turn.system for turn in turns)]
    return _limited(
        [
            _stored(turn) | {"system": None if turn.system == system else turn.system, "left_out": turn.left_out}
            for turn, system in zip(turns, before, strict=False)
        ]
    )


def _stored(turn: WebTurn) -> dict[str, Any]:
    return {
        "written": turn.said,
        "continued": turn.answer,
        "model": turn.model,
        "version": turn.version,
        "settings": [getattr(turn.sampling, name) for name in SLIDERS],
        "ids": turn.ids,
    }


def _limited(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for turn in made:
        if byte_count(made) <= MAX_BYTES:
            break
        turn["ids"] = []
    while byte_count(made) > MAX_BYTES:
        del made[0]
    return made


def from_json(value: object) -> list[WebTurn]:
    """The turns that a browser stored; [] if it stored none. ValueError if the value is damaged."""
    return [turn for _, turn in _validated(STORED_TURNS, value)]


def chat_from_json(value: object) -> list[WebTurn]:
    """As `from_json`, for a chat."""
    turns, system = list[WebTurn](), ""
    for stored, turn in _validated(STORED_CHAT, value):
        system = system if stored.system is None else stored.system
        turns.append(replace(turn, system=system, left_out=stored.left_out))
    return turns


def _validated(kind: TypeAdapter[list[AnyStored]], value: object) -> list[tuple[AnyStored, WebTurn]]:
    with contextlib.suppress(ValueError, RecursionError):
        if byte_count(value) <= MAX_BYTES:
            return [(stored, stored.turn()) for stored in kind.validate_python(value or [])]
    raise ValueError("The conversation stored in this browser is damaged. A new one has started.")


def byte_count(value: object) -> int:
    """The size as UTF-8 JSON. ValueError for a lone surrogate."""
    return len(json.dumps(value, ensure_ascii=False).encode())
