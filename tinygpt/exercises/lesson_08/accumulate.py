"""Gradient accumulation: the gradient of a batch that is too large for memory.

`gradient_of_sum(inputs, targets)` returns the gradient of the summed loss of some sequences. Take at most `size`
sequences at a time (`inputs.split(size)`), add the gradients, and divide by the number of all sequences: the gradient
of the mean loss of the whole batch. (The mean of the parts' means differs, because the last part may be smaller.)
"""

from collections.abc import Callable

from torch import Tensor


def accumulate(
    gradient_of_sum: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor, size: int
) -> Tensor:
    """inputs (N, C), targets (N,) → the gradient of the mean loss, of the shape that gradient_of_sum gives."""
    raise NotImplementedError
