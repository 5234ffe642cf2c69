"""tinygpt/data/sources/tasks.py: right answers, wrong ones that look alike, and held-out items apart from others."""

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from tinygpt.data.sources import tasks
from tinygpt.data.sources.tasks import TASKS, Item, is_held_out, items

KINDS = sorted(TASKS)


def words(question: str) -> list[str]:
    return question.split(": ")[1].split()


def sorted_by_hand(found: list[str], key: Callable[[str], Any]) -> str:
    """By insertion, without sorted()."""
    done: list[str] = []
    for word in found:
        place = sum(1 for other in done if key(other) < key(word))
        done.insert(place, word)
    return " ".join(done)


def closed(question: str) -> str:
    """The brackets that close those of the question: by taking matched pairs away from the end."""
    opened, answer = question.split(": ")[1].split(), []
    while opened:
        answer.append({"(": ")", "[": "]", "{": "}"}[opened.pop()])
    return " ".join(answer)


def counted(question: str) -> str:
    match = re.fullmatch(r"How many (\w) are in ([\w ]+)\?", question)
    assert match
    return str(len(re.findall(rf"\b{match[1]}\b", match[2])))


def numbers(question: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", question)]


ANSWERS: dict[str, Callable[[str], str]] = {  # found from the question alone
    "copy": lambda question: question.removeprefix("Repeat: "),
    "reverse": lambda question: " ".join(reversed(words(question))),
    "sort_words": lambda question: sorted_by_hand(words(question), str),
    "sort_numbers": lambda question: sorted_by_hand(words(question), int),
    "larger": lambda question: str(max(numbers(question))),
    "count": counted,
    "add": lambda question: str(sum(numbers(question))),
    "add_mixed": lambda question: str(sum(numbers(question))),
    "brackets": closed,
}


def drawn(kind: str, count: int = 2000, held_out: bool = False, seed: int = 0) -> list[Item]:
    return list(items(kind, count, held_out, seed))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_right(kind: str, held_out: bool) -> None:
    for item in drawn(kind, held_out=held_out):
        assert item.answer == ANSWERS[kind](item.question)


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_three_wrong_answers_all_different_from_the_right_one(kind: str) -> None:
    for item in drawn(kind) + drawn(kind, held_out=True):
        assert len({item.answer, *item.wrong}) == 4


def shape(answer: str) -> str:
    """An answer with every word, number and bracket replaced by one of its sort."""
    for sort, one in ((r"[a-z]+", "a"), (r"\d+", "0"), (r"[)\]}]", ")")):
        answer = re.sub(sort, one, answer)
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_answers_are_of_the_same_length_and_sort(kind: str) -> None:
    for item in drawn(kind):
        assert {shape(wrong) for wrong in item.wrong} == {shape(item.answer)}


MANY = [2000, pytest.param(20_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("kind", KINDS)
def test_held_out_and_training_items_never_overlap(kind: str, count: int) -> None:
    training, held_out = drawn(kind, count), drawn(kind, count, held_out=True)
    assert not {item.question for item in training} & {item.question for item in held_out}
    assert not any(map(is_held_out, training))
    assert all(map(is_held_out, held_out))
    assert len({item.question for item in held_out}) > 500  # enough to ask about


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"add", "add_mixed"}))
def test_the_same_words_in_another_order_are_held_out_together(kind: str, count: int) -> None:
    training, held_out = (
        {tuple(sorted(re.findall(r"\w+|[([{]", item.question))) for item in drawn(kind, count, part)}
        for part in (False, True)
    )
    assert not training & held_out


@pytest.mark.parametrize("kind", KINDS)
def test_about_a_tenth_is_held_out(kind: str) -> None:
    r = random.Random(5)
    different = {item.question: item for item in (TASKS[kind](r) for _ in range(5000))}.values()
    assert 0.06 < sum(map(is_held_out, different)) / len(different) < 0.14


def test_sums_are_held_out_by_the_rule_in_the_documentation() -> None:
    held_out = set()
    for a in range(10, 100):
        for b in range(10, 100):
            item = Item(f"What is {a} + {b}?", str(a + b), ())
            assert is_held_out(item) == ((7 * a + 11 * b) % 10 == 0)
            held_out |= {item.question} if is_held_out(item) else set()
    assert len(held_out) == 810
    assert {item.question for item in drawn("add", 2000, held_out=True)} <= held_out
    assert not {item.question for item in drawn("add", 20_000)} & held_out


@pytest.mark.parametrize("kind", ["add", "add_mixed"])
def test_no_trained_sum_ends_in_the_digits_of_a_held_out_one(kind: str) -> None:
    training, held_out = (
        {tuple(number % 10 for number in numbers(item.question)) for item in drawn(kind, 5000, part)}
        for part in (False, True)
    )
    assert (len(training), len(held_out)) == (90, 10)
    assert not training & held_out


def test_of_four_in_five_held_out_sums_the_other_order_is_trained() -> None:
    held_out = [(a, b) for a in range(10, 100) for b in range(10, 100) if (7 * a + 11 * b) % 10 == 0]
    trained = [(a, b) for a, b in held_out if not is_held_out(Item(f"What is {b} + {a}?", str(a + b), ()))]
    assert len(trained) / len(held_out) == pytest.approx(0.8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_items(kind: str) -> None:
    assert drawn(kind, 50) == drawn(kind, 50) == drawn(kind, 80)[:50]
    assert drawn(kind, 50) != drawn(kind, 50, seed=1)
    assert len(drawn(kind, 7)) == 7
    assert not drawn(kind, 0)


def test_items_are_the_same_on_every_machine() -> None:
    assert {kind: drawn(kind, 1)[0].question for kind in KINDS} == {
        "add": "What is 59 + 43?",
        "add_mixed": "What is 499 + 701?",
        "brackets": "Close the brackets: [ [ ( [ { { {",
        "copy": "Repeat: wonimu age",
        "count": "How many o are in o k w o o o?",
        "larger": "Which is larger, 949 or 184?",
        "reverse": "Say backwards: anon work case both",
        "sort_numbers": "Sort these numbers: 87 78",
        "sort_words": "Sort these words: general quick mother",
    }


def test_words_have_one_spelling_and_letters_alone() -> None:
    assert len(tasks.WORDS) == len(set(tasks.WORDS))
    assert all(re.fullmatch("[a-z]+", word) for word in tasks.WORDS)
