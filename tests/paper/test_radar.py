"""Figure 1: the published polygon is the paper's, and measured ones stand apart from it."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from medv_lab.paper.published import load_table
from medv_lab.paper.radar import RADAR_DOMAINS, draw_radar, plot_radar, radar_data
from medv_lab.views.style import MODEL_LOOKS, themed
from tests.paper.results_folder import write_table1


def drawn_axes(results):
    with themed():
        return draw_radar(radar_data(results), results).axes


def test_the_vertices_are_table_1(tmp_path):
    (ax,) = drawn_axes(tmp_path)
    table = load_table(1).set_index("model")
    assert [line.get_label() for line in ax.lines] == list(MODEL_LOOKS)
    for line in ax.lines:
        expected = table.loc[line.get_label(), ["cxr", "mri", "histology", "gross", "ct"]].to_numpy(float)
        np.testing.assert_array_equal(line.get_ydata()[:-1], expected)
        assert line.get_ydata()[-1] == expected[0]


def test_models_differ_in_more_than_colour(tmp_path):
    (ax,) = drawn_axes(tmp_path)
    signs = {(line.get_marker(), line.get_linestyle()) for line in ax.lines}
    assert len(signs) == len({line.get_color() for line in ax.lines}) == len(MODEL_LOOKS)


def test_measured_systems_have_axes_of_their_own_that_say_so(tmp_path):
    scores = write_table1(tmp_path)
    published, *measured = drawn_axes(tmp_path)
    assert "published" in published.get_title() and all("measured" in ax.get_title() for ax in measured)
    assert len(published.lines) == 6
    # systems of one training budget in one chart
    assert [[line.get_label() for line in ax.lines] for ax in measured] == [["diffusion"], ["twin"]]
    facts = scores[scores.judge == "phantom facts"].set_index(["system", "group"]).estimate
    groups = ("chest x-ray", "brain mri", "histology", "gross pathology", "abdominal ct")
    for line in (line for ax in measured for line in ax.lines):
        expected = [facts[line.get_label(), group] for group in groups]
        np.testing.assert_array_equal(line.get_ydata()[: len(RADAR_DOMAINS)], expected)


def test_rings_are_labelled_where_lines_leave_room():
    scores = pd.DataFrame({"model": ["diffusion"], **{name: [97.0] for name in RADAR_DOMAINS}})
    ax = plt.figure().add_subplot(projection="polar")
    plot_radar(scores, ax=ax)
    ax.figure.draw_without_rendering()
    (line,), labels = ax.lines, [text for text in ax.texts if text.get_text() in ("20", "40", "60", "80")]
    assert len(labels) == 4
    corners = line.get_transform().transform(line.get_xydata())
    sides = np.concatenate([np.linspace(*ends, 200) for ends in pairwise(corners)])
    assert not [label for label in labels if label.get_window_extent().count_contains(sides)]
