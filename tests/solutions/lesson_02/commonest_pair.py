import itertools
from collections import Counter


def commonest_pair(words: list[tuple[list[bytes], int]]) -> tuple[bytes, bytes]:
    """The pair of neighbours that occurs most often; there is only one such."""
    counts: Counter[tuple[bytes, bytes]] = Counter()
    for pieces, times in words:
        for pair in itertools.pairwise(pieces):
            counts[pair] += times
    return counts.most_common(1)[0][0]
