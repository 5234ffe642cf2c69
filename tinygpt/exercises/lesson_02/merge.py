"""Merge a pair wherever it stands in a word, from left to right.

A piece can be merged only once: of three in a row, b"a", b"a", b"a", the first two become b"aa", and the third stays.

    merge([b"a", b"b", b"a", b"b", b"c"], (b"a", b"b")) → [b"ab", b"ab", b"c"]
"""


def merge(pieces: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The pieces, with each occurrence of the pair as one piece."""
    raise NotImplementedError
