"""A conversation outlives a reload of the page; what a browser says that it stored is taken only where it fits."""

from typing import Any

import pytest

from tinygpt.generation.sampling import Sampling
from tinygpt.web.browser_state import LARGEST, restored, size, stored
from tinygpt.web.requests import NEW_TOKENS
from tinygpt.web.service import WebTurn

TURN = WebTurn("ROMEO:", " é漢", "data/model", "abc", Sampling(0.5, 3, 0.9, 0.1), [1, 2, 3])
JSON: dict[str, Any] = stored([TURN])[0]
TEXTS = ("written", "continued", "model", "version")


def test_a_conversation_comes_back_as_it_was_stored() -> None:
    assert restored(stored([TURN, WebTurn("")])) == [TURN, WebTurn("")]
    assert restored(None) == restored([]) == []


def test_a_long_conversation_is_stored_without_the_oldest_token_ids_and_within_its_bound() -> None:
    turns = [WebTurn("x" * 1000, "y" * 1000, ids=[10**6] * NEW_TOKENS) for _ in range(30)]
    kept = stored(turns)
    assert size(kept) <= LARGEST
    assert [turn["continued"] for turn in kept] == ["y" * 1000] * 30
    known = [bool(turn["ids"]) for turn in kept]
    assert known == sorted(known)
    assert known[-1]
    assert stored([WebTurn("\0" * LARGEST)]) == []


@pytest.mark.parametrize(
    "value",
    [
        "text", 7, {"turns": []}, [None], [[]], [{}], [JSON | {"html": "<b>"}],
        *([JSON | {name: wrong}] for name in TEXTS for wrong in (None, 7, ["x"])),
        *([JSON | {"ids": wrong}] for wrong in (None, [-1], [1.5], ["1"], [True], [2**31], [1] * (NEW_TOKENS + 1))),
        *([JSON | {"settings": wrong}] for wrong in ([], [1, 3, 0.9], [9, 3, 0.9, 0.1], [1, 2.5, 0.9, 0], ["1"] * 4)),
        [JSON | {"settings": [float("nan"), 0, 1, 0]}],
        [JSON | {"written": "a\ud800"}], [JSON] * 2000,
    ],
)  # fmt: skip
def test_what_no_page_stored_is_refused_whole(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^The conversation that this browser stored is damaged; a new one begins\.$"):
        restored(value)
