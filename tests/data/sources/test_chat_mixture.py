"""Conversations from tasks and plays (data/sources/chat_mixture.py); exchanges of a play. No test uses the network."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TEXT, params
from tinygpt import config
from tinygpt.data.conversations import read_conversations
from tinygpt.data.corpus import held_out_documents, read_rows, write_corpus
from tinygpt.data.sources import chat_mixture, documents, shakespeare, tasks
from tinygpt.tokenizer.chat_template import Messages, check_conversation

NONE = {"plays": 0, **dict.fromkeys(tasks.TASKS, 0)}
PLAY = """A Play

ACT I

SCENE I. Verona.

[Enter ROMEO and JULIET]

ROMEO:
But soft! [Aside] What light?
It is the east.

JULIET:
[Above]
Ay me!

[He kneels]

ROMEO:
O, speak again:

[JULIET goes]

Here stand I:
My lady!

NURSE:
Madam!

ROMEO:
Who calls?

ROMEO:
Who calls again?

SCENE II. The same.

JULIET:
[Exit]

NURSE:
Alone: I say.

EPILOGUE

JULIET:
Adieu.

NURSE:
Farewell.
"""


def section(fraction: float = 0.2, **numbers: int) -> config.Download:
    """A mixture of these numbers, and nothing else."""
    return params(
        download__source="chat", download__mixture=NONE | numbers, download__validation_fraction=fraction
    ).download


ROMEO = "O, speak again:\nHere stand I:\nMy lady!"  # one speech, although a direction stands in it


def play(seed: int, speeches: int = 60) -> str:
    r, words = random.Random(seed), TEXT.split()
    lines = [f"{r.choice(['ROMEO', 'JULIET', 'NURSE'])}:\n{' '.join(r.choices(words, k=9))}\n" for _ in range(speeches)]
    return f"Play {seed}\n\nACT I\n\nSCENE I. Verona.\n\n" + "\n".join(lines)


PLAYS = {f"play-{seed}": play(seed) for seed in range(12)}


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(shakespeare, "plays", lambda: ((name, [text]) for name, text in PLAYS.items()))
    return PLAYS


def found(chosen: config.Download) -> dict[bool, dict[str, Messages]]:
    """Name → messages of training conversations (False) and of held-out ones (True)."""
    parts: dict[bool, dict[str, Messages]] = {False: {}, True: {}}
    for name, conversation in chat_mixture.conversations(chosen):
        part = parts[chat_mixture.is_held_out(name)]
        assert name not in part
        part[name] = check_conversation(conversation.messages)
    return parts


def questions(part: dict[str, Messages]) -> list[str]:
    return [m["content"] for messages in part.values() for m in messages if m["role"] == "user"]


def kinds(part: dict[str, Messages]) -> Counter[str]:
    """How many questions each way of asking begins."""
    return Counter(" ".join(question.split()[:2]) for question in questions(part))


# Exchanges of a play


def test_two_speakers_alternate_in_an_exchange() -> None:
    expected: list[list[tuple[str, str]]] = [
        [("ROMEO", "But soft! What light?\nIt is the east."), ("JULIET", "Ay me!"), ("ROMEO", ROMEO)],
        [("ROMEO", ROMEO), ("NURSE", "Madam!"), ("ROMEO", "Who calls?")],  # the first is in both
        [("JULIET", "Adieu."), ("NURSE", "Farewell.")],
    ]
    assert list(shakespeare.exchanges(PLAY)) == expected


def test_stage_directions_between_speeches_do_not_end_an_exchange_and_scenes_do() -> None:
    speeches = "A:\nOne.\n\n[Exeunt]\n\nB:\nTwo.\n\n{}A:\nThree.\n\nB:\nFour.\n"
    words = [[words for _, words in exchange] for exchange in shakespeare.exchanges(speeches.format(""))]
    assert words == [["One.", "Two.", "Three.", "Four."]]
    for heading in ("ACT II", "SCENE III. Elsewhere.", "Scene III:", "PROLOGUE", "INDUCTION"):
        cut = [[words for _, words in each] for each in shakespeare.exchanges(speeches.format(f"{heading}\n\n"))]
        assert cut == [["One.", "Two."], ["Three.", "Four."]]


def test_a_play_without_two_speakers_in_a_scene_has_no_exchanges() -> None:
    assert not list(shakespeare.exchanges("ACT I\n\nA:\nOne.\n\nA:\nTwo.\n\nACT II\n\nB:\nThree.\n"))
    assert not list(shakespeare.exchanges(""))


def test_every_speech_of_a_drawn_play_alternates_and_stands_in_it(plays: dict[str, str]) -> None:
    for text in plays.values():
        for exchange in shakespeare.exchanges(text):
            assert len(exchange) > 1
            assert len({speaker for speaker, _ in exchange}) == 2
            assert all(a[0] != b[0] for a, b in pairwise(exchange))
            assert "\n\n".join(f"{speaker}:\n{words}" for speaker, words in exchange) in text


# The mixture


def test_as_many_questions_as_asked_for_and_in_proportion_held_out() -> None:
    numbers = {"copy": 50, "add": 200, "brackets": 10}
    parts = found(section(**numbers))
    assert kinds(parts[False]) == {"What is": 200, "Close the": 10} | copies(parts[False], 50)
    assert kinds(parts[True]) == {"What is": 40, "Close the": 2} | copies(parts[True], 10)


def copies(part: dict[str, Messages], number: int) -> dict[str, int]:
    """The questions to repeat, which begin with a word of their own: so many in all."""
    counts = {begin: count for begin, count in kinds(part).items() if begin.startswith("Repeat:")}
    assert sum(counts.values()) == number
    return counts


def test_a_conversation_has_one_to_three_questions_in_mixed_order() -> None:
    part = found(section(add=300, larger=300))[False]
    sizes = Counter(len(messages) // 2 for messages in part.values())
    assert set(sizes) == {1, 2, 3}
    both = [messages for messages in part.values() if len({m["content"].split()[0] for m in messages[::2]}) > 1]
    assert len(both) > 50


def test_answers_follow_their_questions() -> None:
    items = {item.question: item.answer for kind in tasks.TASKS for item in tasks.items(kind, 40, False, 0)}
    part = found(section(**dict.fromkeys(tasks.TASKS, 40)))[False]
    for messages in part.values():
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            assert items[question["content"]] == answer["content"]


def test_no_held_out_question_is_in_training() -> None:
    parts = found(section(**dict.fromkeys(tasks.TASKS, 1500)))
    assert not set(questions(parts[False])) & set(questions(parts[True]))


def test_the_system_message_names_the_one_who_answers(plays: dict[str, str]) -> None:
    parts = found(section(plays=10**6))
    for name, messages in (parts[False] | parts[True]).items():
        text = plays[name.removeprefix(chat_mixture.HELD_OUT).split("/")[1]]
        who = messages[0]["content"].removeprefix("You are ").removesuffix(".")
        for message in messages[1:]:
            said = f"{who}:\n{message['content']}" in text
            assert said == (message["role"] == "assistant")


def test_either_of_the_two_may_answer(plays: dict[str, str]) -> None:
    [*exchange] = next(shakespeare.exchanges(plays["play-0"]))
    part = found(section(plays=10**6))
    spoken = {tuple(m["content"] for m in messages[1:]) for each in part.values() for messages in each.values()}
    words = [words for _, words in exchange]
    assert tuple(words[: len(words) // 2 * 2]) in spoken
    assert tuple(words[1:][: (len(words) - 1) // 2 * 2]) in spoken or len(words) == 2


def test_held_out_plays_are_those_of_the_text_corpus(plays: dict[str, str], tmp_path: Path) -> None:
    for fraction in (0.1, 0.2, 0.5):
        texts = params(download__source="shakespeare", download__validation_fraction=fraction).download
        write_corpus(shakespeare.plays(), texts, tmp_path)
        sides = {name: {row for row, _ in read_rows(tmp_path / f"{name}.parquet")} for name in ("train", "validation")}
        assert held_out_documents(plays, fraction) == sides["validation"]
        parts = found(section(fraction, plays=10**6))
        for held_out, side in ((False, "train"), (True, "validation")):
            assert {name.removeprefix(chat_mixture.HELD_OUT).split("/")[1] for name in parts[held_out]} == sides[side]
        answers = {m["content"] for messages in parts[False].values() for m in messages[1:]}
        assert not answers & {m["content"] for messages in parts[True].values() for m in messages[1:]}


@pytest.mark.parametrize("number", [1, 40, 10**6])
def test_of_the_plays_at_most_so_many_exchanges_and_held_out_ones_in_proportion(
    plays: dict[str, str], number: int
) -> None:
    everything, parts = found(section(plays=10**6)), found(section(plays=number))
    assert len(parts[False]) == min(number, len(everything[False]))
    expected = len(everything[True]) * len(parts[False]) / len(everything[False])
    assert abs(len(parts[True]) - max(1, expected)) <= 0.5
    assert all(parts[part].items() <= everything[part].items() for part in parts)


def test_a_long_speech_ends_an_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "w" * (chat_mixture.LONGEST + 1)
    text = f"A:\n1\n\nB:\n2\n\nA:\n{long}\n\nB:\n4\n\nA:\n5\n\nB:\n{long}\n"
    monkeypatch.setattr(shakespeare, "plays", lambda: ((f"{i}", [f"{text}{play(i)}"]) for i in range(4)))
    parts = found(section(plays=10**6))
    contents = {m["content"] for part in parts.values() for messages in part.values() for m in messages}
    assert {"1", "2", "4", "5"} <= contents
    assert max(map(len, contents)) <= chat_mixture.LONGEST


def test_the_same_section_gives_the_same_conversations_in_random_order(plays: dict[str, str]) -> None:
    chosen = section(plays=50, add=50)
    once, again = (list(chat_mixture.conversations(chosen)) for _ in range(2))
    assert once == again
    of_plays = ["plays/" in name for name, _ in once]
    assert sum(one != other for one, other in pairwise(of_plays)) > 10


def test_a_mixture_without_plays_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shakespeare, "plays", lambda: pytest.fail("fetched"))
    assert found(section(add=5))[False]


def test_the_corpus_of_a_mixture_holds_out_what_the_mixture_does(plays: dict[str, str], tmp_path: Path) -> None:
    chosen = section(plays=50, add=300)
    expected: Any = found(chosen)
    found_documents, _ = documents.documents(chosen)
    write_corpus(found_documents, chosen, tmp_path, is_held_out=chat_mixture.is_held_out)
    for held_out, name in ((False, "train"), (True, "validation")):
        assert dict(read_conversations(tmp_path / f"{name}.parquet")) == expected[held_out]
