def best_step(evaluations: list[tuple[int, float]]) -> tuple[int, float]:
    """The step whose weights should be kept, and how far the loss has risen since."""
    step, lowest = min(evaluations, key=lambda evaluation: evaluation[1])
    return step, evaluations[-1][1] - lowest
