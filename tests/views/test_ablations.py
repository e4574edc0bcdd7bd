"""Arms are drawn where their means are, with their intervals."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from medv_lab.views.ablations import plot_arms

TABLE = pd.DataFrame(
    [
        ("ours", "steps", "open", 60.0, 55.0, 65.0),
        ("V1", "steps", "open", 40.0, 30.0, 50.0),
        ("ours", "compute", "open", 70.0, 66.0, 74.0),
        ("ours", "steps", "closed", 50.0, 49.0, 51.0),
    ],
    columns=["arm", "equal", "score", "mean", "low", "high"],
)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_points_and_intervals_are_those_of_the_table():
    ax = plot_arms(TABLE, "open")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "V1"]
    points = [line for line in ax.lines if line.get_label().startswith("equal")]
    assert [list(line.get_xdata()) for line in points] == [[60, 40], [70]]
    ends = [np.array(part.get_segments())[:, :, 0].tolist() for part in ax.collections]
    assert ends == [[[55, 65], [30, 50]], [[66, 74]]]


def test_differences_get_a_line_at_zero():
    ax = plot_arms(TABLE.assign(base="twin"), "closed")
    assert "minus twin" in ax.get_xlabel()
    assert any(set(line.get_xdata()) == {0} for line in ax.lines)


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="there are open, closed"):
        plot_arms(TABLE, "opne")
