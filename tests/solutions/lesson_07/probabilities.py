import math


def probabilities(logits: list[float], temperature: float) -> list[float]:
    """V scores → V probabilities, summing to one."""
    highest = max(logits)
    if temperature == 0:
        return [1.0 if token == logits.index(highest) else 0.0 for token in range(len(logits))]
    weights = [math.exp((score - highest) / temperature) for score in logits]
    return [weight / sum(weights) for weight in weights]
