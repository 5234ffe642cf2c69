"""Is one setting better than another, or was it luck? How far two means are apart, in units of their uncertainty.

Each setting was trained with several seeds. The variance of n results is the sum of squared distances from their
mean, divided by n − 1; the uncertainty of a mean is the root of variance / n; that of a difference of two means is the
root of variance₁ / n₁ + variance₂ / n₂. Give back (mean of ours − mean of theirs), divided by that.

    apart([5.0, 7.0], [1.0, 3.0]) → 2.8284  # means 6 and 2, variances 2 and 2: 4 / √(1 + 1)

Below about 2, in either direction, chance alone may well have made the difference.
"""


def apart(ours: list[float], theirs: list[float]) -> float:
    """Two or more results of each setting → the difference of their means, in uncertainties."""
    raise NotImplementedError
