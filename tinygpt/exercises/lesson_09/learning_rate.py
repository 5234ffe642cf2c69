"""The learning rate of a step: up in equal steps, then down in a straight line.

Step 0 is the first. While step < warmup, the rate is peak × (step + 1) / (warmup + 1). From step `warmup` on it falls:
at that step it is the peak, and at step `steps`, just after the last one, it would be 0.

    learning_rate(0, 10, 4, 1.0) → 0.2
    learning_rate(4, 10, 4, 1.0) → 1.0
    learning_rate(7, 10, 4, 1.0) → 0.5
"""


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """The learning rate at `step`, of 0 … steps − 1; 0 ≤ warmup < steps."""
    raise NotImplementedError
