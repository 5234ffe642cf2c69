def sample_from(probabilities: list[float], number: float) -> int:
    """V probabilities, a number from [0, 1) → the token."""
    end = 0.0
    for token, p in enumerate(probabilities):
        end += p
        if number < end:
            return token
    return max(token for token, p in enumerate(probabilities) if p > 0)
