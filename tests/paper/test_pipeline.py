"""Published and measured differences side by side, with a verdict that follows from the interval."""

import math

import pandas as pd
import pytest

from medv_lab.paper.pipeline import COMPARISONS, ROWS, compare_with_published, judge
from medv_lab.paper.published import load_table


@pytest.mark.parametrize(
    ("published", "low", "high", "verdict"),
    [
        (7.9, 1, 3, "agrees"),
        (7.9, -3, -1, "disagrees"),
        (7.9, -1, 3, "undecided"),
        (-21.5, -9, -2, "agrees"),
        (-0.1, -1, 2, "agrees"),
        (-0.1, 1, 2, "disagrees"),
        (7.9, math.nan, math.nan, "undecided"),
        (-0.1, math.nan, math.nan, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_interval(published, low, high, verdict):
    assert judge(published, low, high) == verdict


def test_every_row_of_the_table_has_an_arm():
    assert set(load_table(4).model) == set(ROWS)


def test_differences_stand_beside_the_published_ones():
    rows = [(ROWS[a], ROWS[b], "steps", "facts", -5.0, -6.0, -4.0) for a, b in COMPARISONS[1:]]
    rows += [("V1", "ours", "compute", "open", 1.0, 0.5, 1.5)]
    differences = pd.DataFrame(rows, columns=["arm", "base", "equal", "score", "mean", "low", "high"])
    found = compare_with_published(differences, "facts").set_index("difference")
    assert list(found.index) == ["V1 - ours", "V2 - ours", "V2 - V1"]
    assert found.published["V1 - ours"] == pytest.approx(31.123 - 52.605)
    assert found.verdict.tolist() == ["agrees", "agrees", "disagrees"]
