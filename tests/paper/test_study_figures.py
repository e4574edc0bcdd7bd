"""What goes beyond the paper draws the tables that the studies wrote."""

import pytest

from medv_lab.paper.exhibits import MissingResults
from medv_lab.paper.study_figures import STUDY_FIGURES
from medv_lab.views.study_plots import unbeaten
from tests.paper.results_folder import write_ablations, write_study

BY_NAME = {exhibit.name: exhibit for exhibit in STUDY_FIGURES}


@pytest.mark.parametrize("exhibit", STUDY_FIGURES, ids=lambda exhibit: exhibit.name)
def test_missing_results_name_the_command(exhibit, tmp_path):
    with pytest.raises(MissingResults, match="medv "):
        exhibit.collect(tmp_path)


def test_ablations_set_equal_steps_beside_equal_compute(tmp_path):
    write_ablations(tmp_path)
    data = BY_NAME["ablation_forest"].collect(tmp_path)
    assert set(data.score) == {"facts", "open", "closed"}
    figure = BY_NAME["ablation_forest"].draw(data, tmp_path)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(data.base) == {"ours"}
    assert lines["equal in steps"].get_xdata().tolist() == [5, 5]
    assert lines["equal in compute"].get_xdata().tolist() == [5]
    assert all(ax.get_ylim()[0] > ax.get_ylim()[1] for ax in figure.axes)
    assert [text.get_text() for text in figure.legends[0].texts] == ["equal in steps", "equal in compute"]


def test_ends_show_score_length_and_repetition_of_every_arm(tmp_path):
    arms = {name: ("end tokens", (8, 4, 4)) for name in ("B=4, ends suppressed", "B=4, ends free")}
    summary = write_study(tmp_path, "eos", arms)
    figure = BY_NAME["eos_study"].draw(BY_NAME["eos_study"].collect(tmp_path), tmp_path)
    for ax, name in zip(figure.axes, ("score", "words", "adjacent_duplicates"), strict=True):
        assert ax.containers[0][0].get_xdata().tolist() == summary[name].tolist()


def test_the_frontier_names_what_none_beats_and_lists_all(tmp_path):
    arms = {name: ("Z", (8, 4, 4)) for name in ("a", "b", "c")}
    write_study(tmp_path, "frontier", arms | {"fast": ("fast", (8, 4, 2))})
    data = BY_NAME["frontier"].collect(tmp_path)
    data.loc[data.arm == "b", "score"] = 0.4  # dearer than a, and worse
    assert unbeaten(data) == ["a", "c", "fast"]
    points, rows = BY_NAME["frontier"].draw(data, tmp_path).axes
    assert {text.get_text() for text in points.texts} == {"a", "c", "fast"}
    assert [label.get_text() for label in rows.get_yticklabels()] == ["a", "b", "c", "fast"]
    assert rows.containers[0][0].get_xdata().tolist() == data.score.tolist()
    data = data.assign(confirmed=0.987, confirmed_low=0.91, confirmed_high=1.04)
    points, _ = BY_NAME["frontier"].draw(data, tmp_path).axes
    assert points.get_title("left") == (  # no digit more than the interval supports
        "fast keeps 99 % [91, 104] of the exact score on the half that did not choose it"
    )
