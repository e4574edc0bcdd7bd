"""The frontier draws the table it is given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from medv_lab.studies.arms import frontier_arms
from medv_lab.views.frontier import plot_frontier


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def summary() -> pd.DataFrame:
    frame = pd.DataFrame([{"arm": arm.name, "group": arm.group} for arm in frontier_arms()])
    frame["passes"] = np.arange(len(frame), 0, -1.0)
    frame["seconds"] = frame["passes"] / 3
    for name in ("score", "recall", "adjacent_duplicates"):
        frame[name] = np.linspace(0.2, 0.8, len(frame))
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.1, frame[name] + 0.05
    return frame


@pytest.mark.parametrize("x", ["passes", "seconds"])
@pytest.mark.parametrize("y", ["score", "recall", "adjacent_duplicates"])
def test_each_arm_is_a_named_point_with_its_interval(x, y):
    frame = summary()
    ax = plot_frontier(frame, x=x, y=y)
    assert {text.get_text() for text in ax.texts} == set(frame.arm)
    groups = list(frame.groupby("group", sort=False))
    assert len(ax.containers) == len(groups)
    for container, (_, part) in zip(ax.containers, groups, strict=True):
        line, _, (bars,) = container
        part = part.sort_values(x)
        assert line.get_xdata().tolist() == part[x].tolist()
        assert line.get_ydata().tolist() == part[y].tolist()
        drawn = [segment[:, 1].tolist() for segment in bars.get_segments()]
        np.testing.assert_allclose(drawn, part[[f"{y}_low", f"{y}_high"]])
    colours = [container[0].get_color() for container in ax.containers]
    assert len(set(colours)) == len(colours)


def test_a_group_without_a_colour_is_named():
    with pytest.raises(ValueError, match="'new'"):
        plot_frontier(summary().assign(group="new"))
