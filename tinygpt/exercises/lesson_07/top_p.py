"""Keep as few of the likeliest tokens as hold probability p together (nucleus sampling).

Take the likeliest token, then the next likely, until what they hold together is p or more. All others get probability
0, and those that stay are divided by their sum, so that they sum to one again.

    top_p([0.2, 0.5, 0.3], 0.6) → [0.0, 0.625, 0.375]  # 0.5 is not enough; 0.5 + 0.3 is
"""


def top_p(probabilities: list[float], p: float) -> list[float]:
    """V probabilities → V probabilities, in the same places."""
    raise NotImplementedError
