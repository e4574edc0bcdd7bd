"""Intervals of a mean and of a paired difference of means; NumPy only.

Over questions: bootstrap (percentile method, Efron 1979). The resampled unit is the question. Scores of one question
by two models are resampled together, so what makes a question hard for both does not widen the interval of their
difference. Over the few seeds of a training run, too few to resample: Student's t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
# 97.5 % points of Student's t for 1, 2, ... degrees of freedom; beyond, those of the last one are a little too wide
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, in the unit of the values."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(values: Values) -> Interval:
    """Compute the mean of scores, one per question, and its bootstrap interval; the same scores give the same.

    Raises:
        ValueError: for no values, or values that are not finite.
    """
    scores = _checked(values)
    rng = np.random.default_rng(0)
    shape = (RESAMPLES // 20, scores.size)  # a twentieth at a time, so that large sets fit into memory
    means = [scores[rng.integers(0, scores.size, shape)].mean(axis=1) for _ in range(20)]
    low, high = np.quantile(np.concatenate(means), ((1 - 0.95) / 2, (1 + 0.95) / 2))
    return Interval(float(scores.mean()), float(low), float(high))


def paired_difference(first: Values, second: Values) -> Interval:
    """Compute mean of `first` minus mean of `second` with its interval, over the same questions in the same order.

    Raises:
        ValueError: if they differ in length, and as `bootstrap_interval`.
    """
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} scores came with {len(second)}; a paired difference needs both for every question"
        )
    return bootstrap_interval(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))


def seed_interval(values: Values) -> Interval:
    """Compute the mean over seeds and its 95 % interval by Student's t; one value alone has no interval (NaN).

    Args:
        values: one score, or one difference of two arms, for every seed.

    Raises:
        ValueError: for no values, or values that are not finite.
    """
    scores = _checked(values)
    mean = float(scores.mean())
    if scores.size == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = STUDENT[min(scores.size - 1, len(STUDENT)) - 1] * scores.std(ddof=1) / np.sqrt(scores.size)
    return Interval(mean, mean - float(half), mean + float(half))


def _checked(values: Values) -> np.ndarray:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"values have shape {scores.shape}; give a list of at least one finite number")
    return scores
