"""Turns can be taken back and replaced, and an answer of which nothing came leaves the one before it."""

import pytest

from tinygpt.chat.conversation import Conversation, Turn


@pytest.fixture
def talk() -> Conversation[Turn]:
    talk = Conversation[Turn]()
    talk.add(Turn("ROMEO:", " Ah"))
    talk.add(Turn(" me", "! Ah"))
    return talk


def test_the_text_is_that_of_all_turns(talk: Conversation[Turn]) -> None:
    assert talk.text == "ROMEO: Ah me! Ah"
    assert Conversation[Turn]().text == ""


def test_the_last_turn_is_taken_back(talk: Conversation[Turn]) -> None:
    assert talk.undo() == Turn(" me", "! Ah")
    assert talk.text == "ROMEO: Ah"


def test_another_answer_takes_the_place_of_the_last_one(talk: Conversation[Turn]) -> None:
    talk.replace_last(Turn(" me", "?"))
    assert talk.replacing
    talk.settle()
    assert (talk.text, talk.replacing) == ("ROMEO: Ah me?", False)


def test_an_answer_of_which_nothing_came_gives_its_place_back(talk: Conversation[Turn]) -> None:
    talk.replace_last(Turn(" me"))
    talk.settle()
    assert talk.text == "ROMEO: Ah me! Ah"


def test_where_nobody_has_written_there_is_nothing_to_take_back_or_replace(talk: Conversation[Turn]) -> None:
    talk.clear()
    for change in (talk.undo, lambda: talk.replace_last(Turn("x"))):
        with pytest.raises(ValueError, match="nothing to take back or to try again yet"):
            change()
