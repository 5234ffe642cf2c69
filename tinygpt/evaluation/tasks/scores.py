"""From log-probabilities or right and wrong answers to a score with its interval: `score(points(…))`."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from tinygpt.evaluation.tasks.likelihood import Scores
from tinygpt.evaluation.tasks.questions import Question
from tinygpt.evaluation.tasks.table import Numbers

Z = NormalDist().inv_cdf(0.975)  # of a 95% interval


def score(points: Sequence[float]) -> Numbers:
    """The mean of points in [0, 1] with Wilson's 95% interval (1927), which holds at 0 and 1, too."""
    n, mean = len(points), sum(points) / len(points)
    centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
    reach = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return {"score": mean, "low": min(low, mean), "high": max(high, mean), "items": n}


def points(scores: Scores, questions: Sequence[Question]) -> list[float]:
    """1 where the true answer is the likeliest per byte, 0 where another is; equal ones share the point.

    Dividing by UTF-8 bytes lets short and long answers compete (lm-evaluation-harness's acc_norm divides by
    characters). An answer in a chat has the loss of its <|end|>, too, which is not among the bytes. Whole sentences are
    compared undivided, as in BLiMP (Warstadt et al. 2020): they differ in one word.
    """
    return [_point(each, question) for each, question in zip(scores, questions, strict=True)]


def chance(questions: Sequence[Question]) -> float:
    """The score of choosing at random."""
    return sum(1 / len(question.options) for question in questions) / len(questions)


def _point(scores: np.ndarray, question: Question) -> float:
    sizes = [len(option.encode()) if question.text else 1 for option in question.options]
    ratios = scores / sizes
    # Sums of the same losses differ in their last digits, depending on the batch.
    best = np.isclose(ratios, ratios.max(), rtol=1e-5, atol=0)
    return float(best[0] / best.sum())
