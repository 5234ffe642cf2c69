def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """The learning rate at `step`, of 0 … steps − 1; 0 ≤ warmup < steps."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * (steps - step) / (steps - warmup)
