"""Curves, forests, the frontier, exactness and the time of a step draw the tables they are given."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from medv_lab.metrics.intervals import bootstrap_interval
from medv_lab.studies.arms import frontier_arms
from medv_lab.views.study_plots import (
    ACCENT,
    SMALLEST_DRIFT,
    plot_exactness,
    plot_forest,
    plot_frontier,
    plot_repetition_vs_steps,
    plot_speed,
    speed_data,
    unbeaten,
)

SECONDS = {"reference": 0.3, "exact": 0.07, "floor": 0.06, "fast": 0.02}
SECONDS |= {"backbone": 0.04, "head": 0.02, "sampler": 0.01}
RESULT = {"size": "mid", "device_name": "cpu", "seconds_per_step": SECONDS}


def summary() -> pd.DataFrame:
    frame = pd.DataFrame([{"arm": arm.name, "group": arm.group} for arm in frontier_arms()])
    frame["passes"] = np.arange(len(frame), 0, -1.0)
    frame["seconds"] = frame["passes"] / 3
    for name in ("score", "recall", "adjacent_duplicates"):
        frame[name] = np.linspace(0.2, 0.8, len(frame))
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.1, frame[name] + 0.05
    return frame


@pytest.mark.parametrize(("x", "y"), [("passes", "score"), ("seconds", "adjacent_duplicates")])
def test_each_arm_is_a_named_point_with_its_interval(x, y):
    frame = summary()
    ax = plot_frontier(frame, x=x, y=y, names=frame.arm)
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


@pytest.mark.parametrize("seed", range(3))
def test_names_cover_neither_each_other_nor_points_and_stay_inside(seed):
    frame, random = summary(), np.random.default_rng(seed)
    frame["passes"] = random.choice([18.0, 19.0, 24.0, 48.0], len(frame)) + random.random(len(frame))
    frame["score"] = 0.5 + random.random(len(frame)) / 2
    frame["score_low"], frame["score_high"] = frame.score - 0.02, frame.score + 0.02
    ax = plot_frontier(frame, names=frame.arm[::3].tolist())
    ax.figure.draw_without_rendering()
    # of an annotation's extent the arrow is a part
    names = [Text.get_window_extent(name).padded(-1) for name in ax.texts]
    assert not [pair for pair in combinations(names, 2) if Bbox.intersection(*pair)]
    points = ax.transData.transform(frame[["passes", "score"]].to_numpy())
    assert not [point for point in points for name in names if name.contains(*point)]
    assert all(ax.bbox.contains(*corner) for name in names for corner in name.corners())


def test_groups_of_a_user_s_own_are_drawn_in_the_accent_and_apart():
    own = pd.concat([summary(), summary()[:2].assign(group=["mine", "yours"], arm=["a", "b"])])
    ax = plot_frontier(own)
    lines = {container.get_label(): container[0] for container in ax.containers}
    assert lines["mine"].get_color() == lines["yours"].get_color() == ACCENT
    markers = [line.get_marker() for line in lines.values()]
    assert len(set(markers)) == len(markers)
    assert {text.get_text() for text in ax.texts} == {
        *unbeaten(own),
        "fast",
        "a",
        "b",
    }  # unless others are named


def test_unbeaten_is_what_none_reaches_for_as_little():
    frame = pd.DataFrame({"arm": list("abcd"), "passes": [4, 4, 8, 9], "score": [0.5, 0.6, 0.6, 0.7]})
    frame["seconds"], frame["adjacent_duplicates"] = frame.passes[::-1].to_numpy(), [0.0, 0.1, 0.2, 0.3]
    assert unbeaten(frame) == ["b", "d"]
    assert unbeaten(frame, "seconds", "adjacent_duplicates") == ["c", "b", "a"]


def test_curves_and_areas_are_the_table():
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"steps": steps, "metric": metric, **vars(bootstrap_interval(random.random(5)))}
        for metric in ("rep_1", "looped")
        for steps in (4, 8, 16)
    )
    ax = plot_repetition_vs_steps(table.sample(frac=1, random_state=0).sort_values("metric"))
    assert [line.get_label() for line in ax.lines] == ["looped", "rep 1"]
    for line, area, metric in zip(ax.lines, ax.collections, ("looped", "rep_1"), strict=True):
        rows = table[table.metric == metric]
        np.testing.assert_array_equal(line.get_xdata(), [4, 8, 16])
        np.testing.assert_array_equal(line.get_ydata(), rows.estimate)
        corners = {tuple(corner) for corner in area.get_paths()[0].vertices}
        ends = [*rows[["steps", "low"]].to_numpy(), *rows[["steps", "high"]].to_numpy()]
        assert {tuple(end) for end in ends} == corners
    assert ax.xaxis_inverted()


def test_a_forest_has_each_mean_at_its_row_with_its_interval():
    data = pd.DataFrame({"arm": ["a", "b"], "x": [1.0, 3.0], "x_low": [0.5, 2.0], "x_high": [2.0, 3.5]})
    ax = plot_forest(data, "arm", "x", xlabel="points")
    line, _, (bars,) = ax.containers[-1]
    assert line.get_xdata().tolist() == [1, 3] and line.get_ydata().tolist() == [0, 1]
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[0.5, 2.0], [2.0, 3.5]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


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


def test_the_parts_of_the_exact_step_follow_each_other_and_the_others_are_whole():
    ax = plot_speed(RESULT)
    lengths = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    expected = [(0, 300), (0, 40), (40, 20), (60, 10), (0, 60), (0, 20)]
    for ours, theirs in zip(lengths, expected, strict=True):
        assert ours == pytest.approx(theirs)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["backbone", "head", "sampler"]


def test_the_table_has_parts_of_the_exact_sampler_only():
    data = speed_data(RESULT)
    assert data.columns.tolist() == ["step", "backbone", "head", "sampler"]
    assert data.loc["exact"].tolist() == pytest.approx([70, 40, 20, 10])
    assert data.drop("exact").drop(columns="step").isna().all(axis=None)
