"""When to have stopped: the step with the lowest validation loss.

A small text is learned by heart: the training loss goes on falling, while the validation loss, on text that the model
never saw, turns and rises. `looks` holds a step and the validation loss at it, in order. Give back the step of the
lowest, the first of equals, and by how much the last loss is above it: 0.0 where the model did not overfit.

    best_step([(0, 4.1), (100, 2.9), (200, 3.4)]) → (100, 0.5)
"""


def best_step(looks: list[tuple[int, float]]) -> tuple[int, float]:
    """The step whose weights should be kept, and how far the loss has risen since."""
    raise NotImplementedError
