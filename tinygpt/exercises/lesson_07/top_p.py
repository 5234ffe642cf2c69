"""Top-p (nucleus) sampling: keep the fewest likeliest tokens whose probabilities sum to p or more.

Take the likeliest token, then the next, until their sum is p or more. All others get probability 0; the kept ones are
divided by their sum, so that they sum to one again.

    top_p([0.2, 0.5, 0.3], 0.6) → [0.0, 0.625, 0.375]  # 0.5 is not enough; 0.5 + 0.3 is
"""


def top_p(probabilities: list[float], p: float) -> list[float]:
    """V probabilities → V probabilities, in the same order."""
    raise NotImplementedError
