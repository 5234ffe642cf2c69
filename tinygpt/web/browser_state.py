"""A conversation as the browser stores it, so that reloading the page keeps it.

`stored(turns)` makes JSON of it, `restored(value)` turns of that. What comes back from a browser is not trusted: one
wrong type, bound or size, and all of it is refused.
"""

import contextlib
import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tinygpt.generation.sampling import Sampling
from tinygpt.web.requests import BOUNDS, NEW_TOKENS, number
from tinygpt.web.service import WebTurn

LARGEST = 2**17  # bytes stored: half of a request, whose other half is the text to be sent
FILTERS = ("temperature", "top-k", "top-p", "min-p")
Id = Annotated[int, Field(ge=0, lt=2**31)]


class StoredTurn(BaseModel):
    """A turn; all but the texts is for the details of its tokens."""

    model_config = ConfigDict(strict=True, extra="forbid")

    written: str
    continued: str
    model: str
    version: str
    settings: Annotated[list[float], Field(max_length=len(FILTERS))]  # in the order of FILTERS
    ids: Annotated[list[Id], Field(max_length=NEW_TOKENS)]

    def turn(self) -> WebTurn:
        """ValueError for a setting out of bounds."""
        values = [number(name, value, *BOUNDS[name]) for name, value in zip(FILTERS, self.settings, strict=True)]
        temperature, top_k, top_p, min_p = values
        sampling = Sampling(temperature, int(top_k), top_p, min_p)
        return WebTurn(self.written, self.continued, self.model, self.version, sampling, self.ids)


TURNS = TypeAdapter(list[StoredTurn])


def stored(turns: Sequence[WebTurn]) -> list[dict[str, Any]]:
    """The turns as JSON of at most LARGEST bytes: of a longer conversation without the oldest token ids."""
    made = [
        {
            "written": turn.said,
            "continued": turn.answer,
            "model": turn.model,
            "version": turn.version,
            "settings": [getattr(turn.sampling, name.replace("-", "_")) for name in FILTERS],
            "ids": turn.ids,
        }
        for turn in turns
    ]
    for turn in made:
        if size(made) <= LARGEST:
            break
        turn["ids"] = []
    return made if size(made) <= LARGEST else []


def restored(value: object) -> list[WebTurn]:
    """The turns of what a browser stored, none where it stored nothing. ValueError where it is something else."""
    with contextlib.suppress(ValueError, RecursionError):
        if size(value) <= LARGEST:  # ValueError where a character is half of one
            return [one.turn() for one in TURNS.validate_python(value or [])]
    raise ValueError("The conversation that this browser stored is damaged; a new one begins.")


def size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())
