"""Intervals of a mean and of a paired difference of means; NumPy only.

Over questions: bootstrap (percentile method, Efron 1979). The resampled unit is the question. Scores of one question
by two models are resampled together, so what makes a question hard for both does not widen the interval of their
difference.

Over seeds and questions, where every seed answered the same ones: both are resampled, each on its own (the pigeonhole
bootstrap of Owen 2007, a little too wide rather than too narrow). Seeds are few, and a plain bootstrap of few is too
narrow: 5 seeds drawn out of 5 hold the mean of a normal distribution in 82 % of cases. So fewer are drawn than there
are, as many as give their mean the spread that Student's t asks for: 2 out of 5, 7 out of 10. Simulated, 5 seeds then
hold it in 93 % of cases or more, whether seeds or questions vary more. Every resampled mean is a mean of observed
outcomes, so an interval of percentages stays within 0 and 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

RESAMPLES = 2000
MIN_SEEDS = 5  # fewer have no interval
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
        digits = supported_digits(self.low, self.high, most=3)
        return f"{self.estimate:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


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


def crossed_interval(outcomes: np.ndarray) -> Interval:
    """Compute the mean over seeds and questions and its bootstrap interval; the same outcomes give the same.

    Args:
        outcomes: (S seeds, Q questions), one score, or one difference of two arms, for every seed and question; fewer
            than `MIN_SEEDS` seeds have no interval (NaN).

    Raises:
        ValueError: for no outcomes, or some that are not finite.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    if outcomes.ndim != 2 or not outcomes.size or not np.isfinite(outcomes).all():
        raise ValueError(f"outcomes have shape {outcomes.shape}; give finite numbers, seeds by questions")
    mean = float(outcomes.mean())
    if len(outcomes) < MIN_SEEDS:
        return Interval(mean, float("nan"), float("nan"))
    of_seeds, of_questions = _crossed_weights(*outcomes.shape)
    means = (of_questions @ outcomes.T * of_seeds).sum(axis=1)  # (R, Q) @ (Q, S) -> (R, S) -> (R,)
    low, high = np.quantile(means, ((1 - 0.95) / 2, (1 + 0.95) / 2))
    # weights are rounded and sum to 1 but nearly: without this, all outcomes 100 may give a little more
    low, high = np.clip((low, high), outcomes.min(), outcomes.max())
    return Interval(mean, float(low), float(high))


@cache
def _crossed_weights(seeds: int, questions: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the weights of seeds (R, S) and of questions (R, Q) in every resample; each row sums to 1."""
    rng = np.random.default_rng(0)
    drawn = round((seeds - 1) * (1.96 / _student(seeds)) ** 2)
    return _draw(rng, seeds, drawn), _draw(rng, questions, questions)


def _draw(rng: np.random.Generator, units: int, drawn: int) -> np.ndarray:
    """Draw so many of the units with replacement, once per resample, as weights (R, units)."""
    # every resample counts in bins of its own
    bins = rng.integers(0, units, (RESAMPLES, drawn)) + units * np.arange(RESAMPLES)[:, None]
    return np.bincount(bins.ravel(), minlength=RESAMPLES * units).reshape(RESAMPLES, units) / drawn


def supported_digits(low: float, high: float, most: int) -> int:
    """Return how many decimals an interval supports, at most `most`.

    Half its width keeps two significant digits up to 35 of its last place, and one beyond (the rule of the Particle
    Data Group for errors). One without width gets a single decimal, and none (NaN) says nothing against `most`.
    """
    half = (high - low) / 2
    if np.isnan(half):
        return most
    return int(np.clip(-np.floor(np.log10(half / 3.55)) if half else 1, 0, most))


def next_seed_range(values: Values, lowest: float, highest: float) -> tuple[float, float]:
    """Compute where one more seed lies in 95 % of cases (Student's t), within bounds; NaN from one value alone.

    Args:
        values: a score of every seed.
        lowest, highest: bounds of the score.

    Raises:
        ValueError: for no values, or values that are not finite.
    """
    scores = _checked(values)
    if scores.size == 1:
        return float("nan"), float("nan")
    half = _student(scores.size) * scores.std(ddof=1) * np.sqrt(1 + 1 / scores.size)
    return max(lowest, float(scores.mean() - half)), min(highest, float(scores.mean() + half))


def _student(values: int) -> float:
    return STUDENT[min(values - 1, len(STUDENT)) - 1]


def _checked(values: Values) -> np.ndarray:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"values have shape {scores.shape}; give a list of at least one finite number")
    return scores
