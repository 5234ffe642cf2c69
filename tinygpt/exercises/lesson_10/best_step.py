"""Early stopping: the step with the lowest validation loss.

A model soon memorises a small text (overfitting): the training loss keeps falling, while the validation loss rises
again. `evaluations` holds (step, validation loss) pairs, in order. Return the step with the lowest loss, the first of
equals, and how far the last loss is above it: 0.0 if the model did not overfit.

    best_step([(0, 4.1), (100, 2.9), (200, 3.4)]) → (100, 0.5)
"""


def best_step(evaluations: list[tuple[int, float]]) -> tuple[int, float]:
    """The step whose weights should be kept, and how far the loss has risen since."""
    raise NotImplementedError
