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
_CHUNK = 2**22  # draws held at a time


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, in the unit of the values."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute the mean of scores and its bootstrap interval; the same seed gives the same interval.

    Args:
        values: one score per question, (N,).
        level: coverage, between 0 and 1.
        resamples: how many samples of N are drawn.
        seed: of the draws.

    Raises:
        ValueError: for no values, values that are not finite, or a level or number of resamples out of range.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"values have shape {scores.shape}; give a list of at least one finite number")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a number between 0 and 1, e.g. 0.95")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; give 1 or more")
    rng = np.random.default_rng(seed)
    per_chunk = max(1, _CHUNK // scores.size)
    means = np.concatenate(
        [
            scores[rng.integers(0, scores.size, (min(per_chunk, resamples - start), scores.size))].mean(
                axis=1
            )
            for start in range(0, resamples, per_chunk)
        ]
    )
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(scores.mean()), float(low), float(high))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute mean of `first` minus mean of `second` with its interval, over the same questions in the same order.

    Raises:
        ValueError: if they differ in length, and as `bootstrap_interval`.
    """
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} scores came with {len(second)}; a paired difference needs both for every question"
        )
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_interval(differences, level=level, resamples=resamples, seed=seed)


def seed_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Compute the mean over seeds and its 95 % interval by Student's t; one value alone has no interval (NaN).

    Args:
        values: one score, or one difference of two arms, for every seed.

    Raises:
        ValueError: for no values, or values that are not finite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"values have shape {scores.shape}; give a list of at least one finite number")
    mean = float(scores.mean())
    if scores.size == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = STUDENT[min(scores.size - 1, len(STUDENT)) - 1] * scores.std(ddof=1) / np.sqrt(scores.size)
    return Interval(mean, mean - float(half), mean + float(half))
