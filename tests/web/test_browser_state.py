"""A conversation survives reloading the page; damaged values from a browser are refused."""

from typing import Any

import pytest

from tinygpt.generation.sampling import Sampling
from tinygpt.web.browser_state import MAX_BYTES, byte_count, from_json, to_json
from tinygpt.web.requests import MAX_NEW_TOKENS
from tinygpt.web.visitor import WebTurn

TURN = WebTurn("ROMEO:", " é漢", "data/model", "abc", Sampling(0.5, 3, 0.9, 0.1), [1, 2, 3])
JSON: dict[str, Any] = to_json([TURN])[0]
TEXTS = ("written", "continued", "model", "version")


def test_a_conversation_is_read_back_as_it_was_stored() -> None:
    assert from_json(to_json([TURN, WebTurn("")])) == [TURN, WebTurn("")]
    assert from_json(None) == from_json([]) == []


def test_a_long_conversation_loses_its_oldest_token_ids_to_stay_within_the_limit() -> None:
    turns = [WebTurn("x" * 1000, "y" * 1000, ids=[10**6] * MAX_NEW_TOKENS) for _ in range(30)]
    kept = to_json(turns)
    assert byte_count(kept) <= MAX_BYTES
    assert [turn["continued"] for turn in kept] == ["y" * 1000] * 30
    known = [bool(turn["ids"]) for turn in kept]
    assert known == sorted(known)
    assert known[-1]
    assert to_json([WebTurn("\0" * MAX_BYTES)]) == []


@pytest.mark.parametrize(
    "value",
    [
        "text", 7, {"turns": []}, [None], [[]], [{}], [JSON | {"html": "<b>"}],
        *([JSON | {name: wrong}] for name in TEXTS for wrong in (None, 7, ["x"])),
        *([JSON | {"ids": wrong}] for wrong in (None, [-1], [1.5], ["1"], [True], [2**31], [1] * (MAX_NEW_TOKENS + 1))),
        *([JSON | {"settings": wrong}] for wrong in ([], [1, 3, 0.9], [-1, 3, 0.9, 0.1], [1, 2.5, 0.9, 0], ["1"] * 4)),
        [JSON | {"settings": [float("nan"), 0, 1, 0]}],
        [JSON | {"written": "a\ud800"}], [JSON] * 2000,
    ],
)  # fmt: skip
def test_a_damaged_conversation_is_refused_as_a_whole(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^The conversation stored in this browser is damaged. A new one has started\.$"
    ):
        from_json(value)


def test_of_a_conversation_too_long_to_store_the_last_turns_are_kept() -> None:
    turns = [WebTurn(f"{number} " + "🙂" * 9000, "a") for number in range(9)]
    kept = from_json(to_json(turns))
    assert 0 < len(kept) < 9
    assert [turn.said for turn in kept] == [turn.said for turn in turns[-len(kept) :]]
