"""Bootstrap intervals: deterministic, as wide as theory says, paired where pairs are given."""

import numpy as np
import pytest

from medv_lab.metrics.intervals import bootstrap_interval, paired_difference, seed_interval

SCORES = np.random.default_rng(1).random(400)


def test_the_interval_has_the_width_of_the_normal_approximation_and_is_the_same_every_time():
    found = bootstrap_interval(SCORES)
    half = 1.96 * SCORES.std() / np.sqrt(len(SCORES))
    assert found.estimate == pytest.approx(SCORES.mean())
    assert (found.low, found.high) == pytest.approx(
        (SCORES.mean() - half, SCORES.mean() + half), abs=0.1 * half
    )
    assert bootstrap_interval(SCORES) == found
    alone = bootstrap_interval([0.25] * 9)
    assert (alone.low, alone.estimate, alone.high) == (0.25, 0.25, 0.25)


def test_a_paired_difference_ignores_what_both_share():
    hard = np.random.default_rng(2).random(200)
    found = paired_difference(hard + 0.1, hard)
    assert (found.low, found.estimate, found.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="2 scores came with 1"):
        paired_difference([1, 0], [1])


@pytest.mark.parametrize("interval", [bootstrap_interval, seed_interval])
@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [[0.5]]])
def test_what_has_no_interval_is_an_error(interval, values):
    with pytest.raises(ValueError, match="at least one finite number"):
        interval(values)


def test_an_interval_over_seeds_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for seeds in (2, 5, 15):
        found = [seed_interval(values) for values in rng.normal(3, 2, (4000, seeds))]
        covered = np.mean([one.low <= 3 <= one.high for one in found])
        assert covered == pytest.approx(0.95, abs=0.012)


def test_one_seed_has_no_interval():
    alone = seed_interval([4.0])
    assert alone.estimate == 4
    assert np.isnan([alone.low, alone.high]).all()
