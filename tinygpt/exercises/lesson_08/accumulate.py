"""The gradient of a batch that is too large for memory, in parts.

`gradient_of_sum(inputs, targets)` gives the gradient of the summed loss of some sequences. Take at most `size`
sequences at a time (`inputs.split(size)`), add the gradients up, and divide by the number of all sequences: that is the
gradient of the mean loss of the whole batch. (A mean of the parts' means is not: the last part may be a smaller one.)
"""

from collections.abc import Callable

from torch import Tensor


def accumulate(
    gradient_of_sum: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor, size: int
) -> Tensor:
    """inputs (N, C), targets (N,) → the gradient of the mean loss, of the shape that gradient_of_sum gives."""
    raise NotImplementedError
