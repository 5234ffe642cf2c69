import itertools


def followers(text: str) -> dict[str, dict[str, int]]:
    """Character → the characters that follow it → how often. The last character has no follower."""
    counts: dict[str, dict[str, int]] = {}
    for one, other in itertools.pairwise(text):
        counts.setdefault(one, {})
        counts[one][other] = counts[one].get(other, 0) + 1
    return counts
