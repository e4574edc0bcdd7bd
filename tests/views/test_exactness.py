"""Every prompt of every comparison is a point, marked where its tokens differ."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from medv_lab.views.exactness import SMALLEST_DRIFT, plot_exactness


def test_points_lie_on_the_line_of_their_comparison():
    reports = pd.DataFrame(
        {
            "comparison": ["batch", "batch", "cache", "cache"],
            "largest_drift": [0.0, 1e-6, 2.0, 3.0],
            "different": [0, 0, 4, 0],
        }
    )
    ax = plot_exactness(reports)
    same, other = (points.get_offsets().tolist() for points in ax.collections)
    assert same == [[SMALLEST_DRIFT, 0], [1e-6, 0], [3.0, 1]]
    assert other == [[2.0, 1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["batch", "cache"]
    plt.close("all")
    with pytest.raises(ValueError, match="comparison"):
        plot_exactness(reports.drop(columns="comparison"))
