def best_step(looks: list[tuple[int, float]]) -> tuple[int, float]:
    """The step whose weights should be kept, and how far the loss has risen since."""
    step, lowest = min(looks, key=lambda look: look[1])
    return step, looks[-1][1] - lowest
