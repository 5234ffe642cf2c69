"""Merge a pair wherever it occurs in a word, from left to right.

A token takes part in at most one merge: of b"a", b"a", b"a", the first two become b"aa", and the third stays.

    merge([b"a", b"b", b"a", b"b", b"c"], (b"a", b"b")) → [b"ab", b"ab", b"c"]
"""


def merge(tokens: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The tokens of a word, with each occurrence of the pair as one token."""
    raise NotImplementedError
