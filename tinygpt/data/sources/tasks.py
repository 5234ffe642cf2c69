"""Generated tasks in words, whose answers can be checked: `for item in items("add", 100, held_out=False, seed=0)`.

An item is a question, its answer and three wrong answers that look alike. The kinds are in TASKS. About a tenth of the
items of each kind, chosen by their content (`is_held_out`), is never trained on. `add` has 8,100 different items,
`brackets` 9,828, `larger` and `add_mixed` about a million, the others millions. Used for chat fine-tuning
(chat_mixture.py) and for evaluation (evaluation/tasks). MINIMAL_PAIRS, a right and a wrong sentence each, are for
evaluation only.

Where all words of an answer could be others, one is replaced, two are exchanged, or both. So each of the four answers
differs in one such step from two others, and a model that prefers short answers, or those most like the others, chooses
no better than chance. One that prefers ordered lists does at sorting, and one that prefers numbers of the question does
at `larger`: exact match is the stricter score.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Frequent words of the plays, so that a vocabulary trained on those has most of them as single tokens.
FREQUENT = (
    "able about above act action after again against age aid air alas alive all almost alone along among and "
    "anger anon another answer any appear are arm arms army art aside ask ass attend awake away awhile back bad "
    "bar bare base battle bear beard bearing bears beast beat beauty become bed been before beg begin behold "
    "being believe beseech best better between bid black blame bless blind blood bloody blow blows body bold bond "
    "book born borne both bound boy boys brain brave break breast breath breathe brief bright bring broke broken "
    "brother brothers brought brow buried burn business but buy call called calls came can cannot canst care "
    "carry case cast castle catch cause certain chain chance change charge charity cheer child children choice "
    "city claim close cold colour colours come comes comfort coming command commend common company condition "
    "confess consent content could counsel count country courage course court cousin coward cried cross crown "
    "crowns cry cur curse cut dam dance danger dangerous dare dark daughter day days dead dear death deed deeds "
    "deep defend den deny depart desire devil did didst die died dies dispatch does dog doing done door doors "
    "dost doth double doubt down draw drawn dream drink drum dry due duke dull dust duty each ear ears earth ease "
    "eat either else end endure enemies enemy enough enter entreat ere even ever every evil eye eyes face fail "
    "fain fair faith fall false far fare farewell father fault fear fell fellow field fight find fire first fit "
    "fly follow fool foot for forth fortune foul found free friend friends from full further gave general gentle "
    "gentleman get give given gods gold gone good grace gracious grave great grief grow had half hand hands hang "
    "happy hard has hast hat hate hath have head hear heard heart hearts heaven hell help hence her here high "
    "highness him himself his hither hold holy home honest honour hope horse hour house how husband ill indeed "
    "into itself joy just keep kill kind king kiss knight know known knows lady land last late law lay leave left "
    "less let letter lie liege lies life light like little live lives long look looks lord lords lose lost love "
    "loved loves mad madam made maid majesty make makes man many mar mark marry master matter may mean means meet "
    "men met might mind mine mistress more most mother mouth much music must myself name nature near need never "
    "new news night noble none nor not nothing now oath off oft old once one only other others our out over own "
    "pardon part pass past peace people pity place play please pleasure poor power pray present prince prison "
    "proud prove purpose put queen quick rather read reason remember report rest return right royal run sad said "
    "same saw say says sea see seek seem seen send sent serve service set shall shalt shame she should show sick "
    "side sight sin since sing sir sister sit sleep sold some son soon sorrow soul sound sovereign speak spirit "
    "stand state stay still strange strong such sun sure swear sweet sword take talk tears tell than thank that "
    "the thee their them then there therefore these they thine thing things think this those thou though thought "
    "thoughts thousand three through thus thy thyself till time together told tongue too true trust truth turn "
    "two uncle under unto upon use very villain virtue want war warrant was way wear weep welcome well were what "
    "when where which while who whom whose why wife will wilt win wind wise wish wit with within without woman "
    "word words work world worth worthy would wrong yet yield you young your yours yourself youth"
)
WORDS = FREQUENT.split()
# For agreement: nouns that take an s, and verbs in the singular and the plural, with the rest of the sentence.
PEOPLE = "king queen lord friend brother sister daughter son father mother knight master prince duke servant"
THINGS = "land house sword letter field crown garden kingdom town horse ship ring flower castle king lord"
PREPOSITIONS = ("of", "with", "near", "behind", "by")
VERBS = (
    ("is", "are", "here"), ("is", "are", "dead"), ("was", "were", "slain"), ("was", "were", "in the house"),
    ("has", "have", "come"), ("has", "have", "no fear"), ("comes", "come", "to court"), ("does", "do", "not love me"),
    ("knows", "know", "the truth"), ("speaks", "speak", "of war"),
)  # fmt: skip
INVENTED = 0.15  # of the words to repeat
DIGITS = (1, 2, 3, 3)  # of a number in a mixed sum, at most
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BRACKETS = {"(": ")", "[": "]", "{": "}"}
WRONG = 3  # wrong answers of an item
Random = random.Random


class Item(NamedTuple):
    """A question, its answer, and wrong answers that look alike; of a minimal pair, the question is empty."""

    question: str
    answer: str
    wrong: tuple[str, ...]


def copy(r: Random) -> Item:
    words = _any_words(r, r.randint(2, 5))
    return _item("Repeat: " + " ".join(words), " ".join(words), _alike(words, r))


def reverse(r: Random) -> Item:
    words = r.sample(WORDS, r.randint(2, 4))
    backwards = words[::-1]
    return _item("Say backwards: " + " ".join(words), " ".join(backwards), _alike(backwards, r))


def sort_words(r: Random) -> Item:
    words = r.sample(WORDS, r.randint(2, 4))
    ordered = sorted(words)
    return _item("Sort these words: " + " ".join(words), " ".join(ordered), _alike(ordered, r))


def sort_numbers(r: Random) -> Item:
    numbers = r.sample(range(100), r.randint(2, 4))
    ordered = [str(number) for number in sorted(numbers)]
    question = "Sort these numbers: " + " ".join(map(str, numbers))
    return _item(question, " ".join(ordered), _alike(ordered, r))


def larger(r: Random) -> Item:
    a, b = r.sample(range(1000), 2)
    others = [min(a, b), max(a, b) + 1, max(a, b) + 10]
    return _item(f"Which is larger, {a} or {b}?", str(max(a, b)), iter(map(str, others)).__next__)


def count(r: Random) -> Item:
    letter, others = r.choice(LETTERS), r.sample(LETTERS, 3)
    letters = [letter if r.random() < 0.4 else r.choice(others) for _ in range(r.randint(4, 9))]
    number = letters.count(letter)
    return _item(f"How many {letter} are in {' '.join(letters)}?", str(number), _near(number, r))


def add(r: Random) -> Item:
    return _sum(r.randint(10, 99), r.randint(10, 99), r)


def add_mixed(r: Random) -> Item:
    """A sum of numbers of one to three digits."""
    return _sum(r.randrange(10 ** r.choice(DIGITS)), r.randrange(10 ** r.choice(DIGITS)), r)


def brackets(r: Random) -> Item:
    opened = [r.choice(list(BRACKETS)) for _ in range(r.randint(3, 8))]
    closed = [BRACKETS[bracket] for bracket in reversed(opened)]
    return _item("Close the brackets: " + " ".join(opened), " ".join(closed), lambda: " ".join(_replaced(closed, r)))


def agreement(r: Random) -> Item:
    """A sentence whose verb agrees with its subject, against one whose verb agrees with the noun between them."""
    subject, attractor = r.choice(PEOPLE.split()), r.choice(THINGS.split())
    singular, plural, rest = r.choice(VERBS)
    start, verbs = f"The {subject} {r.choice(PREPOSITIONS)} the {attractor}s", (singular, plural)
    if r.random() < 0.5:
        start, verbs = f"The {subject}s {r.choice(PREPOSITIONS)} the {attractor}", (plural, singular)
    right, wrong = (f"{start} {verb} {rest}." for verb in verbs)
    return Item("", right, (wrong,))


TASKS: dict[str, Callable[[Random], Item]] = {
    make.__name__: make for make in (copy, reverse, sort_words, sort_numbers, larger, count, add, add_mixed, brackets)
}
MINIMAL_PAIRS = {"agreement": agreement}


def items(kind: str, number: int, held_out: bool, seed: int) -> Iterator[Item]:
    """`number` items of a kind, held out or not; some may be equal. The same arguments give the same items.

    kind: one of TASKS or MINIMAL_PAIRS.
    """
    r, make = random.Random(f"{kind} {held_out} {seed}"), (TASKS | MINIMAL_PAIRS)[kind]
    while number:
        item = make(r)
        if is_held_out(item) == held_out:
            number -= 1
            yield item


def is_held_out(item: Item) -> bool:
    """Whether an item is never trained on: a sum a + b if (7a + 11b) mod 10 = 0, which is if b's last digit is that of
    3a; any other by a checksum of its question's words in alphabetical order (without a question, of the answer's), so
    that the same words in another order are held out together. Of four in five held-out sums, b + a is trained on.
    """
    words = (item.question or item.answer).rstrip("?").split()
    if "+" in words:
        a, b = int(words[-3]), int(words[-1])
        return (7 * a + 11 * b) % 10 == 0
    return zlib.crc32(" ".join(sorted(words)).encode()) % 10 == 0


def _item(question: str, answer: str, wrong: Callable[[], str]) -> Item:
    """An item with WRONG different wrong answers."""
    found: dict[str, None] = {}
    while len(found) < WRONG:
        if (other := wrong()) != answer:
            found[other] = None
    return Item(question, answer, tuple(found))


def _sum(a: int, b: int, r: Random) -> Item:
    return _item(f"What is {a} + {b}?", str(a + b), _near(a + b, r, carry=True))


def _any_words(r: Random, number: int) -> list[str]:
    """Different words, some of them invented: a model that only knows WORDS by heart cannot repeat a new one."""
    words: dict[str, None] = {}
    while len(words) < number:
        invented = "".join(r.choice(CONSONANTS) + r.choice(VOWELS) for _ in range(r.randint(1, 3)))
        words[invented if r.random() < INVENTED else r.choice(WORDS)] = None
    return list(words)


def _near(number: int, r: Random, carry: bool = False) -> Callable[[], str]:
    """Draws numbers at most three from `number`; carry: or ten, as a wrong carry gives."""
    steps = (-3, -2, -1, 1, 2, 3) + (-10, 10) * carry
    return lambda: str(abs(number + r.choice(steps)))


def _alike(words: list[str], r: Random) -> Callable[[], str]:
    """The words with one of them replaced by another of the same kind, with two exchanged, and with both."""
    numbers = words[0].isdigit()
    other = words[0]
    while other in words:
        other = str(r.randrange(100)) if numbers else r.choice(WORDS)
    old, (i, j) = r.choice(words), r.sample(range(len(words)), 2)
    exchanged = list(words)
    exchanged[i], exchanged[j] = words[j], words[i]
    replaced, both = ([other if word == old else word for word in each] for each in (words, exchanged))
    return map(" ".join, (replaced, exchanged, both)).__next__


def _replaced(brackets: list[str], r: Random) -> list[str]:
    """The brackets with one of them replaced by another kind."""
    replaced = list(brackets)
    replaced[r.randrange(len(replaced))] = r.choice(list(BRACKETS.values()))
    return replaced
