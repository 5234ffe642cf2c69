"""Metrics of samples: how surprising a text is, how varied, how much of it stands in the training text.

`of_model(model, completion)` → what the model and the text alone tell; `of_text(texts, rows)` → which of their words
the training text has, and the longest passage of each that stands there word for word, in one pass over rows as
data/corpus.py reads them and in constant memory. `held_out` cuts passages from real text, to be measured beside. Left
out: whether a text makes sense, which no number here can say.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinygpt.data.corpus import Rows
from tinygpt.data.overlap import hashes
from tinygpt.generation.automaton import Automaton
from tinygpt.generation.generate import Completion
from tinygpt.generation.windows import sequence_surprisal
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

WORD = re.compile(r"\w+(?:['’]\w+)*")  # letters and digits, with an apostrophe inside: thou, 'tis → tis, o'er
STRETCH = 8  # characters; a passage shorter than this is no copy, any two texts of a language share some
TABLE = 22  # bits of a stretch's hash that are looked at: a table of 4 MB
PROMPT = 8  # tokens of real text that a passage of it continues, as a sample continues its prompt
READ = 2**18  # characters of held-out text that passages are cut from

MEANING = {  # how to read the four numbers of a setting
    "bits per byte": "how much the text surprises the model itself, at temperature 1. Far below real text it is dull: "
    "the model says what is safest. Above, it says what even it finds unlikely.",
    "distinct-2": "of all pairs of neighbouring words, in all samples of a cell together, the share that differ. Low "
    "is repetition, within a sample or from one to the next. Only samples of like number and length compare.",
    "known words": "the share of words that stand somewhere in the training text. What is missing is invented, or cut "
    "off at the end; real text has some new words, too.",
    "copied": "the longest passage of a sample, in characters, that stands word for word in the training text; the "
    "mean over samples. Real text of the same kind shares short phrases; far more is learned by heart.",
}

Metrics = dict[str, Any]


def of_model(model: GPT, tokenizer: Tokenizer, completion: Completion) -> Metrics:
    """Metrics that need no other text: surprisal under the model at temperature 1, and distinct-1, -2 and -3.

    bits_per_token and bits_per_byte are those of the completion, after its prompt. None where there is nothing to
    count.
    """
    prompt = tokenizer.encode(completion.prompt) or [tokenizer.end_of_text]
    bits = sequence_surprisal(model, [*prompt, *completion.ids], len(prompt))
    found = words(completion.completion)
    return {
        "bits_per_token": _ratio(bits.sum(), len(bits)),
        "bits_per_byte": _ratio(bits.sum(), len(completion.completion.encode())),
        **{f"distinct_{n}": distinct([found], n) for n in (1, 2, 3)},
    }


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return WORD.findall(text.lower())


def distinct(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Distinct-n (Li et al. 2016): different n-grams over all n-grams, of the words of all texts together.

    Longer texts, and more of them, repeat more: only texts of like length and number can be compared.
    """
    grams = [tuple(text[place : place + n]) for text in texts for place in range(len(text) - n + 1)]
    return _ratio(len(set(grams)), len(grams))


def of_text(texts: Sequence[str], rows: Rows, advance: Callable[[int], object] = lambda size: None) -> list[Metrics]:
    """Overlap of each text with the training text: known_words, longest_copy (characters) and copied, that passage.

    rows: (document, text) of the training text, read once; `advance` hears their bytes. Time grows with them: two
    or three minutes of a core for 1 GB and a hundred texts.
    """
    wanted = [words(text) for text in texts]
    unknown = {word for found in wanted for word in found}
    copies = Copies(texts)
    for document, text in rows:
        unknown -= set(words(text))
        copies.read(document, text)
        advance(len(text.encode()))
    return [
        {
            "known_words": _ratio(sum(word not in unknown for word in found), len(found)),
            "longest_copy": len(passage),
            "copied": passage,
        }
        for found, passage in zip(wanted, copies.longest, strict=True)
    ]


class Copies:
    """The longest passage of each text that stands in what is read: `read(document, row)`, then `longest`.

    Every stretch of eight characters of the texts marks a place of a table, by its hash. Where stretches one after the
    other in what is read all have their marks, there is a passage that may stand in a text; an automaton of the texts
    reads those longer than the longest so far, so two stretches of one mark cost time and change nothing.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.longest = [""] * len(self.texts)
        self._marked = np.zeros(2**TABLE, dtype=bool)
        for text in self.texts:
            self._marked[stretches(text)] = True
        self._automaton = Automaton(self.texts)
        self._keep = max(map(len, self.texts), default=0) or 1  # characters that a passage may lie across two rows with
        self._document, self._end = "", ""

    def read(self, document: str, row: str) -> None:
        """Read on: a row of a document, the one after the row before where the document is the same."""
        text = (self._end if document == self._document else "") + row
        self._document, self._end = document, text[-self._keep :]
        marked = np.concatenate(([False], self._marked[stretches(text)], [False]))
        first, last = (np.flatnonzero(edge) for edge in (marked[1:] > marked[:-1], marked[1:] < marked[:-1]))
        lengths, least = last - first + STRETCH - 1, self._shortest()
        order = np.argsort(-lengths, kind="stable")
        passages = [text[first[run] : last[run] + STRETCH - 1] for run in order[lengths[order] > least].tolist()]
        for number, passage in self._automaton.longest(passages, least).items() if passages else ():
            if len(passage) > len(self.longest[number]):
                self.longest[number] = passage

    def _shortest(self) -> float:
        """The length of the shortest of the longest passages, of those texts that can have a longer one."""
        sizes = [(max(len(best), STRETCH - 1), len(text)) for best, text in zip(self.longest, self.texts, strict=True)]
        return min((best for best, most in sizes if best < most), default=math.inf)


def stretches(text: str) -> np.ndarray:
    """Where each stretch of STRETCH characters of a text has its place in the table: (N − STRETCH + 1,) uint64."""
    return hashes(text, STRETCH) >> np.uint64(64 - TABLE)


def held_out(rows: Rows, tokenizer: Tokenizer, count: int, length: int) -> list[Completion]:
    """Passages of real text, of `length` tokens each, spread over its beginning, as completions.

    Fewer where the text is short, and shorter ones where there is only one.
    """
    text = ""
    for _, row in rows:
        text += row[: READ - len(text)]
        if len(text) >= READ:
            break
    ids = tokenizer.encode(text)
    count = max(1, min(count, len(ids) // (PROMPT + length)))
    starts = [len(ids) * number // count for number in range(count)]
    cuts = [(ids[place : place + PROMPT], ids[place + PROMPT : place + PROMPT + length]) for place in starts]
    return [Completion(tokenizer.decode(a), tokenizer.decode(b), 0, tuple(b)) for a, b in cuts if b]


def together(metrics: Sequence[Metrics], texts: Sequence[str]) -> Metrics:
    """Metrics of several samples of one setting: their means; distinct-n is over all of them together."""
    names = ("bits_per_token", "bits_per_byte", "known_words", "longest_copy")
    values = {name: [one[name] for one in metrics if one.get(name) is not None] for name in names}
    means = {name: _ratio(sum(found), len(found)) for name, found in values.items()}
    found = [words(text) for text in texts]
    return means | {f"distinct_{n}": distinct(found, n) for n in (1, 2, 3)}


def _ratio(a: float, b: int) -> float | None:
    """a / b for people and for files: four digits after the point, None where there is nothing to divide by."""
    return round(float(a) / b, 4) if b else None
