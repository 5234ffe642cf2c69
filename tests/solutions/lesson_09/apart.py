import math


def apart(ours: list[float], theirs: list[float]) -> float:
    """Two or more results of each setting → the difference of their means, in uncertainties."""

    def mean(results: list[float]) -> float:
        return sum(results) / len(results)

    def square_of_uncertainty(results: list[float]) -> float:
        distances = [(result - mean(results)) ** 2 for result in results]
        return sum(distances) / (len(results) - 1) / len(results)

    return (mean(ours) - mean(theirs)) / math.sqrt(square_of_uncertainty(ours) + square_of_uncertainty(theirs))
