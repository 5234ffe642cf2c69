"""From scores to probabilities, at a temperature.

Divide all scores by the temperature, then softmax: exp(score), divided by the sum. Below 1 the likely becomes likelier,
above 1 the unlikely does. Temperature 0 means: all for the highest score (the first of equals), nothing for the others.
Scores divided by a small temperature are large, and exp of a large number overflows: subtract the highest score first.

    probabilities([2.0, 1.0], 1.0) → [0.73106, 0.26894]
"""

import math


def probabilities(logits: list[float], temperature: float) -> list[float]:
    """V scores → V probabilities, summing to one."""
    raise NotImplementedError
