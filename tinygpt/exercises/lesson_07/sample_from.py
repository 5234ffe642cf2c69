"""Sample a token with a random number from [0, 1).

Divide [0, 1) into intervals as wide as the probabilities: the first token has [0, p0), the second [p0, p0 + p1), and so
on. Return the token whose interval contains the number. A token of probability 0 is never sampled. If rounding makes
the sum a little less than 1, the last token with a probability above 0 gets the rest.

    sample_from([0.2, 0.5, 0.3], 0.6) → 1
"""


def sample_from(probabilities: list[float], number: float) -> int:
    """V probabilities, a number from [0, 1) → the token."""
    raise NotImplementedError
