"""Split a text into parts without changing its tokens: `for part in parts(text, 2**14)`.

A pattern splits a text into words, and no token crosses a word. In every pattern here, a space between two characters
that are not white space begins a word: a boundary. Parts cut at boundaries give the same ids as the whole text, need
little memory and can be encoded in parallel. `encodable` and `learnable` also handle the texts that the libraries fail
on: very long white space and very long words. Other possible boundaries are not used; spaces are the fastest to find.
"""

import re
from collections.abc import Iterator

# GPT-2's pattern as tiktoken writes it: contractions, words, numbers, other characters, white space.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# Those of OpenAI's later vocabularies: upper and lower case split, numbers in threes, newlines apart from other spaces.
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

# Python counts four control characters as white space that Unicode does not; no boundary next to them is safe.
_BOUNDARY = re.compile(r"(?<=\S)(?= \S)")

# tiktoken's regex engine overflows on a million white-space characters in a row. In a part longer than this, long runs
# are split off where the pattern would split them: the whole run at the end of the text, all but its last elsewhere.
_LONGEST_BACKTRACK = 500_000
_LONG_SPACE = re.compile(r"([^\S\x1c-\x1f]{100,}(?=[^\S\x1c-\x1f]|\Z))")

_LEARNED_AT_ONCE = 2**14  # characters; the library holds 256 parts in memory at once
_LONGEST_WORD = 1000  # characters; a limit for learning only
_ENDLESS_WORD, _HALF_OF_ONE = (  # letters and digits, or anything else: a whole long word, and half of one
    re.compile(rf"(?<![^\W_])[^\W_]{{{_LONGEST_WORD}}}|(?<![\W_])[\W_]{{{_LONGEST_WORD}}}"),
    re.compile(rf"[^\W_]{{{_LONGEST_WORD // 2}}}|[\W_]{{{_LONGEST_WORD // 2}}}"),
)


def parts(text: str, size: int) -> Iterator[str]:
    """The text in parts of `size` ≥ 1 characters or more, each ending at the next boundary."""
    start = 0
    while start < len(text):
        boundary = _BOUNDARY.search(text, start + size)
        end = boundary.start() if boundary else len(text)
        yield text[start:end]
        start = end


def encodable(text: str) -> Iterator[str]:
    """The text in parts that tiktoken can encode; with GPT-2's pattern, any text."""
    for part in parts(text, _LONGEST_BACKTRACK // 2):
        yield from [part] if len(part) <= _LONGEST_BACKTRACK else _LONG_SPACE.split(part)


def is_endless(text: str) -> bool:
    """Whether tiktoken could overflow on a part without a boundary; with GPT-2's pattern `encodable` prevents that."""
    return any(len(part) > _LONGEST_BACKTRACK for part in parts(text, _LONGEST_BACKTRACK // 2))


def for_library(pattern: str) -> str:
    """A pattern for the `tokenizers` library, which reads `{1,3}+` as a repeated group, not as possessive."""
    return pattern.replace("{1,3}+", "{1,3}")


def learnable(text: str) -> Iterator[str]:
    """The text in small parts; if it contains a very long word, in parts of 1000 characters cut anywhere.

    Learning time grows with the square of a word's length: a megabyte of letters without white space would take
    minutes, and takes a second in such parts.
    """
    if not _has_endless_word(text):
        return parts(text, _LEARNED_AT_ONCE)
    return (text[start : start + _LONGEST_WORD] for start in range(0, len(text), _LONGEST_WORD))


def _has_endless_word(text: str) -> bool:
    """Whether the text contains a very long word; every such word contains a whole stride of half its length."""
    strides = range(0, len(text), _LONGEST_WORD // 2)
    return any(_HALF_OF_ONE.match(text, start) for start in strides) and _ENDLESS_WORD.search(text) is not None
