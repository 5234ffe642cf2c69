"""Draw a token with a number from [0, 1).

Lay the tokens side by side, each as wide as its probability: the first takes [0, p0), the second [p0, p0 + p1), and so
on up to 1. The token that the number falls into is drawn; so each is drawn as often as it is likely, and the same
number draws the same token. A token of probability 0 has no width, and is never drawn. Where rounding makes the
probabilities sum to a little less than 1, what lies beyond is the last token's that has a width.

    sample_from([0.2, 0.5, 0.3], 0.6) → 1
"""


def sample_from(probabilities: list[float], number: float) -> int:
    """V probabilities, a number from [0, 1) → the token."""
    raise NotImplementedError
