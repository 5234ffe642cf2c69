"""Find the pair that byte-pair encoding merges next: the most frequent pair of neighbours.

A word is a list of tokens, at first single bytes; `words` holds words and how often each occurs in the text. Count
every pair of neighbouring tokens, weighted by its word's count, and return the pair with the highest count.

    commonest_pair([([b"a", b"b", b"a", b"b"], 2), ([b"b", b"a"], 1)]) → (b"a", b"b")

It occurs 4 times, (b"b", b"a") only 3 times.
"""


def commonest_pair(words: list[tuple[list[bytes], int]]) -> tuple[bytes, bytes]:
    """The most frequent pair of neighbours; there are no ties."""
    raise NotImplementedError
