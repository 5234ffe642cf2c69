"""Metrics of samples: surprisal, diversity, and overlap with the training text.

`model_metrics(model, tokenizer, completion)` → surprisal and variety; `training_overlap(texts, rows)` → how many words
of each text the training text has, and the longest passage copied from it, in one pass over rows as data/corpus.py
reads them and in constant memory. `held_out_passages` are real text for comparison. Left out: whether a text makes
sense.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinygpt.data.corpus import Rows
from tinygpt.data.overlap import hashes
from tinygpt.generation.automaton import SuffixAutomaton
from tinygpt.generation.generate import Completion, prompt_ids
from tinygpt.generation.windows import sequence_surprisal
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

WORD = re.compile(r"\w+(?:['’]\w+)*")  # letters and digits, with an apostrophe inside: thou, 'tis → tis, o'er
NGRAM = 8  # characters; shorter passages are no copies, since any two texts of a language share some
HASH_BITS = 22  # of an n-gram's hash that are used: a table of 4 MB
PROMPT_TOKENS = 8  # of held-out text before each passage, since a sample, too, continues a prompt
HELD_OUT_SIZE = 2**18  # characters of held-out text, from its beginning, that passages are taken from

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


def model_metrics(model: GPT, tokenizer: Tokenizer, completion: Completion) -> Metrics:
    """Metrics that need no other text: surprisal under the model at temperature 1, and distinct-1, -2 and -3.

    bits_per_token and bits_per_byte are means over the completion, given its prompt. A metric is None if the completion
    is too short for it.
    """
    prompt = prompt_ids(tokenizer, completion.prompt)
    bits = sequence_surprisal(model, [*prompt, *completion.ids], len(prompt))
    found = words(completion.completion)
    return {
        "bits_per_token": _ratio(bits.sum(), len(bits)),
        "bits_per_byte": _ratio(bits.sum(), len(completion.completion.encode())),
        **{f"distinct_{n}": distinct([found], n) for n in (1, 2, 3)},
    }


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return WORD.findall(text.lower())


def distinct(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Distinct-n (Li et al. 2016): the number of different word n-grams divided by all, counted over all texts.

    Longer and more texts repeat more, so compare only texts of similar length and number. None without n-grams.
    """
    ngrams = [tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)]
    return _ratio(len(set(ngrams)), len(ngrams))


def training_overlap(
    texts: Sequence[str], rows: Rows, advance: Callable[[int], object] = lambda size: None
) -> list[Metrics]:
    """Overlap of each text with the training text: known_words, longest_copy (characters) and copied, that passage.

    rows: (document, text) of the training text, read once; `advance` is called with the size of each, in bytes. 1 GB
    and a hundred texts take two or three minutes on one core.
    """
    text_words = [words(text) for text in texts]
    unknown = {word for found in text_words for word in found}
    copies = LongestCopies(texts)
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
        for found, passage in zip(text_words, copies.longest, strict=True)
    ]


class LongestCopies:
    """The longest passage of each text that occurs in the training text: `read(document, row)`, then `longest`.

    A hash table holds every 8-gram of characters of the texts. A run of consecutive 8-grams of the training text that
    are all in the table may be a copy. A suffix automaton of the texts checks the runs longer than the longest copies
    so far, so hash collisions cost time but never change the result.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.longest = [""] * len(self.texts)
        self._in_texts = np.zeros(2**HASH_BITS, dtype=bool)
        for text in self.texts:
            self._in_texts[ngram_hashes(text)] = True
        self._automaton = SuffixAutomaton(self.texts)
        self._overlap = max(map(len, self.texts), default=0) or 1  # a passage across two rows has at most so many
        self._document, self._end = "", ""

    def read(self, document: str, row: str) -> None:
        """Read the next row; it continues the previous one if the document is the same."""
        text = (self._end if document == self._document else "") + row
        self._document, self._end = document, text[-self._overlap :]
        found = np.concatenate(([False], self._in_texts[ngram_hashes(text)], [False]))
        first, last = (np.flatnonzero(edge) for edge in (found[1:] > found[:-1], found[1:] < found[:-1]))
        lengths, longer_than = last - first + NGRAM - 1, self._length_to_beat()
        order = np.argsort(-lengths, kind="stable")
        passages = [text[first[run] : last[run] + NGRAM - 1] for run in order[lengths[order] > longer_than].tolist()]
        for number, passage in self._automaton.longest(passages, longer_than).items() if passages else ():
            if len(passage) > len(self.longest[number]):
                self.longest[number] = passage

    def _length_to_beat(self) -> float:
        """The shortest of the longest copies so far, in characters, among texts that are not copied entirely."""
        sizes = [(max(len(best), NGRAM - 1), len(text)) for best, text in zip(self.longest, self.texts, strict=True)]
        return min((best for best, most in sizes if best < most), default=math.inf)


def ngram_hashes(text: str) -> np.ndarray:
    """The hash, of HASH_BITS bits, of each NGRAM characters of a text: uint64 (N − NGRAM + 1,)."""
    return hashes(text, NGRAM) >> np.uint64(64 - HASH_BITS)


def held_out_passages(rows: Rows, tokenizer: Tokenizer, count: int, length: int) -> list[Completion]:
    """Passages of held-out text, each of `length` tokens after a short prompt, evenly spread over its beginning.

    A short text gives fewer passages; if it suffices for one only, that may be shorter.
    """
    text = ""
    for _, row in rows:
        text += row[: HELD_OUT_SIZE - len(text)]
        if len(text) >= HELD_OUT_SIZE:
            break
    ids = tokenizer.encode(text)
    count = max(1, min(count, len(ids) // (PROMPT_TOKENS + length)))
    starts = [len(ids) * number // count + PROMPT_TOKENS for number in range(count)]
    passages = [(ids[start - PROMPT_TOKENS : start], ids[start : start + length]) for start in starts]
    return [Completion(tokenizer.decode(a), tokenizer.decode(b), 0, tuple(b)) for a, b in passages if b]


def aggregate(metrics: Sequence[Metrics], texts: Sequence[str]) -> Metrics:
    """Metrics of several samples with the same settings: means, and distinct-n over all texts."""
    names = ("bits_per_token", "bits_per_byte", "known_words", "longest_copy")
    values = {name: [each[name] for each in metrics if each.get(name) is not None] for name in names}
    means = {name: _ratio(sum(found), len(found)) for name, found in values.items()}
    found = [words(text) for text in texts]
    return means | {f"distinct_{n}": distinct(found, n) for n in (1, 2, 3)}


def _ratio(a: float, b: int) -> float | None:
    """a / b, rounded to four decimals; None if b is 0."""
    return round(float(a) / b, 4) if b else None
