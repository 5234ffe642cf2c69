"""Where a text can be cut without changing its tokens: `for part in parts(text, 2**14)`.

A pattern splits a text into words, and pieces form inside a word only. In every pattern here, a space between two
characters that are not white space begins a word, whatever stands around it: a boundary. Parts cut at boundaries
give the same ids as the whole, take little memory, and spread evenly over the cores. `encodable` and `learnable`
also handle the two texts that the libraries fail on: endless white space, and endless words.

Left out: every other place where a text could be cut, since spaces are found soonest.
"""

import re
from collections.abc import Iterator

# GPT-2's pattern as tiktoken writes it: contractions, words, numbers, other signs, white space.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# Those of OpenAI's later vocabularies: cases apart, numbers in threes, new lines apart from other spaces.
CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"""
    r"""\s+(?!\S)|\s"""
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
O200K = (
    rf"""[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}|"""
    r"""\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
PATTERNS = (PATTERN, CL100K, O200K)

# Python counts four control characters as white space that Unicode does not; beside them is no boundary, which is safe.
_BOUNDARY = re.compile(r"(?<=\S)(?= \S)")

# tiktoken's regex engine overflows on a million white-space characters in a row. In a text longer than this, long runs
# are set apart exactly where the pattern would: all of them at the text's end, all but the last elsewhere.
_LONGEST_BACKTRACK = 500_000
_LONG_SPACE = re.compile(r"([^\S\x1c-\x1f]{100,}(?=[^\S\x1c-\x1f]|\Z))")

_LEARNED_AT_ONCE = 2**14  # characters; the library holds 256 parts at once, and some words' worth of facts on each
_LONGEST_WORD = 1000  # characters; only the learning minds
_ENDLESS_WORD, _HALF_OF_ONE = (  # of letters and digits, or of anything else; sought from where it begins, or inside it
    re.compile(rf"(?<![^\W_])[^\W_]{{{_LONGEST_WORD}}}|(?<![\W_])[\W_]{{{_LONGEST_WORD}}}"),
    re.compile(rf"[^\W_]{{{_LONGEST_WORD // 2}}}|[\W_]{{{_LONGEST_WORD // 2}}}"),
)


def parts(text: str, size: int) -> Iterator[str]:
    """The text, cut at the first boundary after every `size` ≥ 1 characters; a part without a boundary is longer."""
    start = 0
    while start < len(text):
        boundary = _BOUNDARY.search(text, start + size)
        end = boundary.start() if boundary else len(text)
        yield text[start:end]
        start = end


def encodable(text: str) -> Iterator[str]:
    """The text in parts that tiktoken encodes, however long it is and, by GPT-2's pattern, whatever it holds."""
    for part in parts(text, _LONGEST_BACKTRACK // 2):
        yield from [part] if len(part) <= _LONGEST_BACKTRACK else _LONG_SPACE.split(part)


def is_endless(text: str) -> bool:
    """Whether a part without a boundary is so long that tiktoken could overflow on it; with GPT-2's pattern `encodable`
    prevents that.
    """
    return any(len(part) > _LONGEST_BACKTRACK for part in parts(text, _LONGEST_BACKTRACK // 2))


def for_library(pattern: str) -> str:
    """A pattern as the `tokenizers` library reads it, where `{1,3}+` is a repeated group, not one without way back."""
    return pattern.replace("{1,3}+", "{1,3}")


def learnable(text: str) -> Iterator[str]:
    """The text in small parts; where it holds a word without end, in parts of 1000 characters, cut anywhere.

    Learning takes time with the square of a word's length. A megabyte of one letter, or of letters without white
    space, would take minutes; so it takes a second.
    """
    if not _has_endless_word(text):
        return parts(text, _LEARNED_AT_ONCE)
    return (text[start : start + _LONGEST_WORD] for start in range(0, len(text), _LONGEST_WORD))


def _has_endless_word(text: str) -> bool:
    """Look closely only where half of such a word is; each holds a whole stride of half its length."""
    strides = range(0, len(text), _LONGEST_WORD // 2)
    return any(_HALF_OF_ONE.match(text, start) for start in strides) and _ENDLESS_WORD.search(text) is not None
