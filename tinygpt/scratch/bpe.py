"""Byte-pair encoding: merge frequent pairs of neighbouring tokens, so that a text becomes fewer tokens.

`vocabulary = learn(texts, merges=500)` learns the merges; `encode(text, vocabulary)` → ids; `decode(ids, vocabulary)` →
text. To watch: `for line in show_learning(text): print(line)`, and `show_encoding(text, vocabulary)`.

BPE was a compression algorithm (Gage 1994), applied to words by Sennrich et al. (2016). GPT-2 starts from the 256 bytes
(Radford et al. 2019), so it can encode every text in any language, and no token is unknown. Left out: speed, since all
pairs are counted again for each merge; and <|endoftext|>, which stands for no text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

import regex  # like Python's re, but it also knows which characters are letters (\p{L}) and numbers (\p{N})

Pair = tuple[bytes, bytes]

# A text is first split into words, and pairs merge only inside a word. Otherwise the vocabulary would fill up with
# combinations such as "the." and "of the". A word includes the space before it. `++` is a possessive `+`, which does
# not backtrack: the same matches here, in less time.
PATTERN = "|".join(
    [
        r"'(?:[sdmt]|ll|ve|re)",  # the end of a contraction: don't, we'll
        r" ?\p{L}++",  # letters
        r" ?\p{N}++",  # digits and other numbers
        r" ?[^\s\p{L}\p{N}]++",  # everything else that is not white space: punctuation, emoji
        r"\s++$",  # white space at the end of the text
        r"\s+(?!\S)",  # white space except its last character, which belongs to the next word if it is a space
        r"\s",  # that last character, if it is not a space
    ]
)

# The ids of single bytes are not their values: GPT-2 starts with the printable characters of Latin-1.
PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
BYTES = [bytes([value]) for value in PRINTABLE + [value for value in range(256) if value not in PRINTABLE]]


def split(text: str) -> list[str]:
    """Split a text into words, which join to the text: "I'll go" → ["I", "'ll", " go"]."""
    return regex.findall(PATTERN, text)


def single_bytes(word: str) -> list[bytes]:
    """The UTF-8 bytes of a word, one or more per character: "né" → [b"n", b"\\xc3", b"\\xa9"].

    UnicodeEncodeError for a lone surrogate, which is half of a character.
    """
    return [bytes([value]) for value in word.encode()]


def merge(tokens: list[bytes], pair: Pair) -> list[bytes]:
    """Merge the pair wherever it occurs, from left to right: [a, b, a, b], (a, b) → [ab, ab]."""
    merged: list[bytes] = []
    position = 0
    while position < len(tokens):
        step = 2 if tuple(tokens[position : position + 2]) == pair else 1
        merged.append(b"".join(tokens[position : position + step]))
        position += step
    return merged


def learning(texts: Iterable[str]) -> Iterator[tuple[Pair, int, dict[str, list[bytes]]]]:
    """Learn one merge after another: yields the pair, how often it occurred, and the tokens of each word after it.

    The most frequent pair is merged. Of equally frequent pairs it is the one with the lowest id on the left, then on
    the right: an arbitrary rule, which makes the result deterministic.
    """
    frequency = Counter(word for text in texts for word in split(text))  # each different word is processed once
    words = {word: single_bytes(word) for word in frequency}
    ids = {token: number for number, token in enumerate(BYTES)}
    while True:
        pairs: Counter[Pair] = Counter()
        for word, tokens in words.items():
            for pair in pairwise(tokens):
                pairs[pair] += frequency[word]
        if not pairs:  # every word is one token
            return
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        ids.setdefault(b"".join(best), len(ids))
        words = {word: merge(tokens, best) for word, tokens in words.items()}
        yield best, pairs[best], words


def learn(texts: Iterable[str], merges: int) -> dict[bytes, int]:
    """The vocabulary, token → id: the 256 bytes, then a token for each merge, in the order of learning.

    Merging stops early if no pairs are left.
    """
    learned = [b"".join(pair) for (pair, _, _), _ in zip(learning(texts), range(merges), strict=False)]
    return {token: number for number, token in enumerate(BYTES + learned)}


def merging(word: str, vocabulary: dict[bytes, int]) -> Iterator[list[bytes]]:
    """The tokens of a word: first its bytes, then the tokens after each merge.

    The pair whose merged token has the lowest id is merged first. This is the order of learning, so words of the
    training text get the same tokens as in learning.
    """
    tokens = single_bytes(word)
    yield tokens
    while known := [pair for pair in pairwise(tokens) if b"".join(pair) in vocabulary]:
        tokens = merge(tokens, min(known, key=lambda pair: vocabulary[b"".join(pair)]))
        yield tokens


def encode(text: str, vocabulary: dict[bytes, int]) -> list[int]:
    """The token ids of a text."""
    ids: list[int] = []
    for word in split(text):
        *_, tokens = merging(word, vocabulary)
        ids += [vocabulary[token] for token in tokens]
    return ids


def decode(ids: Iterable[int], vocabulary: dict[bytes, int]) -> str:
    """The text of token ids; bytes that are not valid UTF-8 become U+FFFD. IndexError for an unknown id."""
    tokens = list(vocabulary)
    return b"".join(tokens[number] for number in ids).decode(errors="replace")


def shown(tokens: Iterable[bytes]) -> str:
    """Tokens as text, separated by bars; bytes of an incomplete character as \\x and their value."""
    return "|".join(token.decode(errors="backslashreplace") for token in tokens)


def show_learning(text: str) -> Iterator[str]:
    """A line for each merge: how often the pair occurred, the pair, and the tokens of the text after the merge."""
    for (left, right), count, words in learning([text]):
        tokens = shown(token for word in split(text) for token in words[word])
        yield f"{count} × {shown([left])!r} + {shown([right])!r}: {tokens}"


def show_encoding(text: str, vocabulary: dict[bytes, int]) -> Iterator[str]:
    """For each word, a line with its bytes and one after each merge of `encode`."""
    for word in split(text):
        yield from map(shown, merging(word, vocabulary))
