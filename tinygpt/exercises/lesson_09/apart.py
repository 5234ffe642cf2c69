"""Welch's t: the difference of two means, in units of its standard error.

Each setting was trained with several seeds. The variance of n results is the sum of squared distances from their
mean, divided by n − 1; the standard error of a mean is √(variance / n); that of a difference of two means is
√(variance₁ / n₁ + variance₂ / n₂). Return (mean of ours − mean of theirs), divided by that.

    apart([5.0, 7.0], [1.0, 3.0]) → 2.8284  # means 6 and 2, variances 2 and 2: 4 / √(1 + 1)

If the absolute value is below about 2, the difference may be chance.
"""


def apart(ours: list[float], theirs: list[float]) -> float:
    """Two or more results of each setting → the difference of their means, in standard errors."""
    raise NotImplementedError
