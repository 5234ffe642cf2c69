"""When to have stopped: the step with the lowest validation loss.

A small text is soon memorised (overfitting): the training loss keeps falling, while the validation loss, on text that
the model never saw, turns and rises. `evaluations` holds (step, validation loss) pairs, in order. Return the step with
the lowest loss, the first of equals, and how far the last loss is above it: 0.0 where the model did not overfit.

    best_step([(0, 4.1), (100, 2.9), (200, 3.4)]) → (100, 0.5)
"""


def best_step(evaluations: list[tuple[int, float]]) -> tuple[int, float]:
    """The step whose weights should be kept, and how far the loss has risen since."""
    raise NotImplementedError
