"""Find what byte-pair encoding merges next: the pair of neighbours that occurs most often.

A word is a list of pieces, at first one a byte; `words` holds words and how often each occurs in the text. Count every
pair of neighbouring pieces, as often as its word occurs, and give back the pair with the highest count.

    commonest_pair([([b"a", b"b", b"a", b"b"], 2), ([b"b", b"a"], 1)]) → (b"a", b"b")

It occurs 4 times, (b"b", b"a") only 3 times.
"""


def commonest_pair(words: list[tuple[list[bytes], int]]) -> tuple[bytes, bytes]:
    """The pair of neighbours that occurs most often; there is only one such."""
    raise NotImplementedError
