def top_p(probabilities: list[float], p: float) -> list[float]:
    """V probabilities → V probabilities, in the same places."""
    kept = [0.0] * len(probabilities)
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        if sum(kept) >= p:
            break
        kept[token] = probabilities[token]
    return [weight / sum(kept) for weight in kept]
