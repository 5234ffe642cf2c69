"""The learning rate schedule: linear warm-up, then linear decay.

Step 0 is the first. While step < warmup, the rate is peak × (step + 1) / (warmup + 1). Then it decays linearly from the
peak at step `warmup` to 0 at step `steps`, just after the last one.

    learning_rate(0, 10, 4, 1.0) → 0.2
    learning_rate(4, 10, 4, 1.0) → 1.0
    learning_rate(7, 10, 4, 1.0) → 0.5
"""


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """The learning rate at `step`, of 0 … steps − 1; 0 ≤ warmup < steps."""
    raise NotImplementedError
