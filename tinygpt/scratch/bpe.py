"""Byte-pair encoding: a text becomes few tokens, since pairs of neighbours that occur often are merged into one.

`vocabulary = learn(texts, merges=500)` finds the pairs; `encode(text, vocabulary)` → ids; `decode(ids, vocabulary)` →
text. To watch: `for line in show_learning(text): print(line)`, and `show_encoding(text, vocabulary)`.

The idea is a compressor's (Gage 1994), used on words since Sennrich et al. (2016). GPT-2 starts from the 256 bytes
(Radford et al. 2019): every text can be written, in any language, and nothing is ever unknown. Left out: speed, since
all pairs are counted anew for each merge; and <|endoftext|>, which stands for no text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

import regex  # like Python's re, but it also knows which characters are letters (\p{L}) and numbers (\p{N})

Pair = tuple[bytes, bytes]

# A text is first split into words, and pairs merge inside a word only: else " the" and "the." would be tokens of their
# own, and the vocabulary would fill up with words glued together. A word takes the space before it along. `++` is `+`
# that never gives anything back, which changes no match here and saves time.
PATTERN = "|".join(
    [
        r"'(?:[sdmt]|ll|ve|re)",  # the end of a contraction: don't, we'll
        r" ?\p{L}++",  # letters
        r" ?\p{N}++",  # digits and other numbers
        r" ?[^\s\p{L}\p{N}]++",  # everything else that is not white space: punctuation, emoji
        r"\s++$",  # white space at the end of the text
        r"\s+(?!\S)",  # white space, all but its last character, which goes to the word behind it if it is a space
        r"\s",  # that last character, where it is none
    ]
)

# The ids of single bytes are not their values: GPT-2 put those first that Latin-1 can print.
PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
BYTES = [bytes([value]) for value in PRINTABLE + [value for value in range(256) if value not in PRINTABLE]]


def split(text: str) -> list[str]:
    """The words of a text, which joined give the text: "I'll go" → ["I", "'ll", " go"]."""
    return regex.findall(PATTERN, text)


def single_bytes(word: str) -> list[bytes]:
    """ "né" → [b"n", b"\\xc3", b"\\xa9"]: one or more bytes a character. UnicodeEncodeError for half of one."""
    return [bytes([value]) for value in word.encode()]


def merge(pieces: list[bytes], pair: Pair) -> list[bytes]:
    """Join the two wherever they stand side by side, from left to right: [a, b, a, b], (a, b) → [ab, ab]."""
    merged: list[bytes] = []
    place = 0
    while place < len(pieces):
        step = 2 if tuple(pieces[place : place + 2]) == pair else 1
        merged.append(b"".join(pieces[place : place + step]))
        place += step
    return merged


def learning(texts: Iterable[str]) -> Iterator[tuple[Pair, int, dict[str, list[bytes]]]]:
    """Learn merge after merge: yields the pair, how often it occurred, and all words as they then stand.

    The pair that occurs most is merged; of several, the one whose left part has the lowest id, then whose right part
    has. That rule is arbitrary, but there must be one, or the same text would not always give the same tokens.
    """
    times = Counter(word for text in texts for word in split(text))  # each different word is worked on once
    words = {word: single_bytes(word) for word in times}
    ids = {token: number for number, token in enumerate(BYTES)}
    while True:
        pairs: Counter[Pair] = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += times[word]
        if not pairs:  # every word is one token
            return
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        ids.setdefault(b"".join(best), len(ids))
        words = {word: merge(pieces, best) for word, pieces in words.items()}
        yield best, pairs[best], words


def learn(texts: Iterable[str], merges: int) -> dict[bytes, int]:
    """The vocabulary, token → id: 256 bytes, and a token for each merge, in the order they were learned.

    Fewer merges than asked for where the text holds no more pairs.
    """
    learned = [b"".join(pair) for (pair, _, _), _ in zip(learning(texts), range(merges), strict=False)]
    return {token: number for number, token in enumerate(BYTES + learned)}


def merging(word: str, vocabulary: dict[bytes, int]) -> Iterator[list[bytes]]:
    """A word as it stands at first, as bytes, and after each merge.

    The pair whose token has the lowest id merges first: the order of learning, so that a word that was there is cut
    now as it was cut then.
    """
    pieces = single_bytes(word)
    yield pieces
    while known := [pair for pair in pairwise(pieces) if b"".join(pair) in vocabulary]:
        pieces = merge(pieces, min(known, key=lambda pair: vocabulary[b"".join(pair)]))
        yield pieces


def encode(text: str, vocabulary: dict[bytes, int]) -> list[int]:
    """The ids of a text."""
    ids: list[int] = []
    for word in split(text):
        *_, pieces = merging(word, vocabulary)
        ids += [vocabulary[piece] for piece in pieces]
    return ids


def decode(ids: Iterable[int], vocabulary: dict[bytes, int]) -> str:
    """The text of some ids; bytes that are no whole character become U+FFFD. IndexError for an id that is none."""
    tokens = list(vocabulary)
    return b"".join(tokens[number] for number in ids).decode(errors="replace")


def shown(pieces: Iterable[bytes]) -> str:
    """Tokens with a bar between them; a part of a character as \\x and its value."""
    return "|".join(piece.decode(errors="backslashreplace") for piece in pieces)


def show_learning(text: str) -> Iterator[str]:
    """A line for each merge: the two, how often they stood side by side, and the text as it then stands."""
    for (left, right), count, words in learning([text]):
        now = shown(piece for word in split(text) for piece in words[word])
        yield f"{count} × {shown([left])!r} + {shown([right])!r}: {now}"


def show_encoding(text: str, vocabulary: dict[bytes, int]) -> Iterator[str]:
    """A line for each merge that `encode` makes, word by word."""
    for word in split(text):
        yield from map(shown, merging(word, vocabulary))
