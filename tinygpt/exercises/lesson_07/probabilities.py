"""From logits to probabilities, at a temperature.

Divide all logits by the temperature, then softmax: exp(logit), divided by the sum. Below 1 the likely becomes likelier,
above 1 the unlikely does. Temperature 0 means: all for the highest logit (the first of equals), nothing for the others.
Logits divided by a small temperature are large, and exp of a large number overflows: subtract the highest logit first.

    probabilities([2.0, 1.0], 1.0) → [0.73106, 0.26894]
"""

import math


def probabilities(logits: list[float], temperature: float) -> list[float]:
    """V logits → V probabilities, summing to one."""
    raise NotImplementedError
