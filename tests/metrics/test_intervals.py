"""Bootstrap intervals: deterministic, as wide as theory says, paired where pairs are given."""

import math

import numpy as np
import pytest

from medv_lab.metrics.intervals import (
    Interval,
    bootstrap_interval,
    crossed_interval,
    next_seed_range,
    paired_difference,
    supported_digits,
)

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


@pytest.mark.parametrize("at", [0, -1])
def test_every_question_is_drawn_equally_often(at):
    scores = np.zeros(10)
    scores[at] = 1  # drawn k of 10 times, binomial: P(k <= 2) = 0.93, P(k <= 3) = 0.99
    found = bootstrap_interval(scores)
    assert (found.low, found.high) == pytest.approx((0, 0.3))


@pytest.mark.parametrize("interval", [bootstrap_interval, lambda grid: crossed_interval(grid.reshape(8, 50))])
def test_both_ends_leave_out_equally_much(interval):
    found, turned = interval(SCORES), interval(-SCORES)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_seven_of_ten_seeds_are_drawn():
    outcomes = np.zeros((10, 3))
    outcomes[:2] = 1  # drawn k of 7 times, binomial: P(k <= 3) = 0.967, P(k <= 4) = 0.995
    found = crossed_interval(outcomes)
    assert (found.low, found.high) == pytest.approx((0, 4 / 7))


def test_a_paired_difference_ignores_what_both_share():
    hard = np.random.default_rng(2).random(200)
    found = paired_difference(hard + 0.1, hard)
    assert (found.low, found.estimate, found.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="2 scores came with 1"):
        paired_difference([1, 0], [1])


@pytest.mark.parametrize("interval", [bootstrap_interval, lambda values: next_seed_range(values, 0, 1)])
@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [[0.5]]])
def test_what_has_no_interval_is_an_error(interval, values):
    with pytest.raises(ValueError, match="at least one finite number"):
        interval(values)


@pytest.mark.parametrize("outcomes", [[0.5], np.zeros((5, 0)), [[0.5, float("nan")]]])
def test_outcomes_that_are_no_grid_are_an_error(outcomes):
    with pytest.raises(ValueError, match="seeds by questions"):
        crossed_interval(outcomes)


@pytest.mark.parametrize("seeds", [5, 8, 15])
@pytest.mark.parametrize(
    ("of_seeds", "of_questions", "of_both", "most"), [(1, 0, 0, 0.97), (0.1, 1, 1, 1), (0, 1, 0.1, 0.97)]
)
def test_an_interval_over_seeds_and_questions_covers_the_mean(seeds, of_seeds, of_questions, of_both, most):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        grid = rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_questions, (1, 60))
        found = crossed_interval(grid + rng.normal(0, of_both, (seeds, 60)))
        covered.append(found.low <= 0 <= found.high)
    assert 0.9 <= np.mean(covered) <= most


def test_intervals_of_bounded_outcomes_stay_within_the_bounds():
    rng = np.random.default_rng(3)
    for chance in (0.01, 0.5, 0.99):
        outcomes = 100 * (rng.random((5, 40)) < chance)
        found = crossed_interval(outcomes)
        assert 0 <= found.low <= found.estimate <= found.high <= 100
        assert crossed_interval(outcomes) == found
    for shape in ((5, 40), (6, 300), (9, 7)):
        certain = crossed_interval(np.full(shape, 100))
        assert (certain.low, certain.high) == (100, 100)


def test_what_all_seeds_share_widens_no_difference():
    rng = np.random.default_rng(4)
    first = rng.normal(size=(5, 1)) + rng.normal(size=(1, 50))
    found = crossed_interval(first + 0.1 - first)
    assert (found.low, found.estimate, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_few_seeds_have_no_interval():
    few = crossed_interval(np.eye(4))
    assert few.estimate == 1 / 4
    assert np.isnan([few.low, few.high]).all()
    assert np.isfinite(crossed_interval(np.eye(5)).high)


def test_one_more_seed_lies_within_the_range_and_the_range_within_the_bounds():
    rng = np.random.default_rng(5)
    draws = rng.normal(50, 5, (2000, 6))
    within = [low <= new <= high for *old, new in draws for low, high in [next_seed_range(old, 0, 100)]]
    assert np.mean(within) == pytest.approx(0.95, abs=0.015)
    assert next_seed_range([90, 99, 95], 0, 100)[1] == 100
    assert np.isnan(next_seed_range([90], 0, 100)).all()


@pytest.mark.parametrize("count", range(2, 12))
def test_the_range_holds_95_percent_of_student_s_distribution(count):
    values = np.arange(count)
    low, high = next_seed_range(values, -100, 100)
    assert low + high == pytest.approx(count - 1)
    t = (high - low) / 2 / values.std(ddof=1) / math.sqrt(1 + 1 / count)
    free = count - 1
    x = np.linspace(-t, t, 20001)
    density = (1 + x**2 / free) ** (-(free + 1) / 2)
    density *= math.gamma((free + 1) / 2) / math.gamma(free / 2) / math.sqrt(math.pi * free)
    assert np.trapezoid(density, x) == pytest.approx(0.95, abs=1e-4)


def test_beyond_ten_degrees_of_freedom_the_range_is_a_little_too_wide():
    values = np.arange(30)
    half = 2.228 * values.std(ddof=1) * math.sqrt(31 / 30)  # 2.045 would do
    assert next_seed_range(values, -100, 100) == pytest.approx((14.5 - half, 14.5 + half))


def test_an_interval_is_written_with_at_most_three_decimals():
    assert str(Interval(0.12345, 0.1230, 0.1239)) == "0.123 [0.123, 0.124]"
    assert str(Interval(50, 30, 70)) == "50 [30, 70]"


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [
        (0, 100, 0),
        (90, 98, 0),
        (10, 10.6, 2),
        (10, 10.8, 1),
        (95.3, 99.4, 1),
        (97.1, 98.6, 1),
        (0.6, 0.8, 2),
        (0.97, 0.98, 3),
        (5, 5, 1),
    ],
)
def test_as_many_digits_as_the_interval_supports(low, high, digits):
    assert supported_digits(low, high, most=3) == digits
    assert supported_digits(low, high, most=0) == 0


def test_no_interval_leaves_the_digits_as_they_are():
    assert supported_digits(float("nan"), float("nan"), most=2) == 2
