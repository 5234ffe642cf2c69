"""Softmax with a temperature: logits to probabilities.

Divide all logits by the temperature, then apply softmax: exp(logit), divided by the sum. A temperature below 1 makes
likely tokens likelier, one above 1 unlikely ones. At temperature 0, the highest logit (the first of equals) has
probability 1. exp of a large number overflows: subtract the highest logit first.

    probabilities([2.0, 1.0], 1.0) → [0.73106, 0.26894]
"""

import math


def probabilities(logits: list[float], temperature: float) -> list[float]:
    """V logits → V probabilities, summing to one."""
    raise NotImplementedError
