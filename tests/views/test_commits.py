"""Order, confidence and alternatives are drawn exactly as the trace has them."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.commits import plot_alternatives, plot_commit_order, plot_confidence


@pytest.fixture
def trace() -> SampleTrace:
    position = np.array([2, 0, -1, 1, 4])  # one commit lies in the prompt
    return SampleTrace(
        step=np.array([0, 0, 1, 1, 2]),
        block=np.array([0, 0, 0, 0, 1]),
        position=position,
        token_id=np.array([5, 6, 7, 7, 5]),
        confidence=np.array([0.9, 0.5, 0.1, 0.4, 0.8]),
        entropy=np.array([0.2, 1.0, 2.0, 1.5, 0.5]),
        alternative_ids=np.array([[5, 6], [6, 5], [7, 5], [7, 6], [5, 7]]),
        alternative_probs=np.array([[0.9, 0.1], [0.5, 0.3], [0.1, 0.1], [0.4, 0.35], [0.8, 0.2]]),
        stops=np.full(3, 6),
        gen_length=6,
        block_length=3,
        mask_token_id=9,
        pieces={5: b" a", 6: b" b", 7: b" c"},
    )


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_commit_order_draws_each_commit_of_the_answer(trace):
    ax = plot_commit_order(trace)
    points = ax.collections[0]
    np.testing.assert_array_equal(points.get_offsets(), [[2, 0], [0, 0], [1, 1], [4, 2]])
    np.testing.assert_array_equal(points.get_array(), [0.9, 0.5, 0.4, 0.8])
    assert [line.get_xdata()[0] for line in ax.lines] == [2.5]  # the one border between two blocks


def test_confidence_draws_commits_and_the_mean_of_each_pass(trace):
    ax = plot_confidence(trace)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0, 0.9], [0, 0.5], [1, 0.4], [2, 0.8]])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.7, 0.4, 0.8])
    entropy = ax.figure.axes[-1].lines[0]
    np.testing.assert_array_equal(entropy.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(entropy.get_ydata(), [0.6, 1.5, 0.5])


def test_earlier_commits_of_a_position_stay_in_the_order_and_are_ringed(trace):
    again = replace(trace, position=np.array([2, 0, -1, 1, 2]))
    assert len(plot_commit_order(trace).collections) == 1
    points, rings = plot_commit_order(again).collections
    np.testing.assert_array_equal(points.get_offsets(), [[2, 0], [0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(rings.get_offsets(), [[2, 0]])


def test_alternatives_are_the_probabilities_at_every_commit_of_the_position(trace):
    ax = plot_alternatives(replace(trace, position=np.array([2, 0, -1, 2, 4])), 2)
    table = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    np.testing.assert_array_equal(table, [[0.9, np.nan], [np.nan, 0.4], [0.1, 0.35]])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "c", "b"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1"]
    frames = [(round(patch.get_x()), round(patch.get_y())) for patch in ax.patches]
    assert frames == [(0, 0), (1, 1)]  # "a" was chosen first, then "c"


def test_a_token_that_was_not_among_the_alternatives_has_a_blank_cell(trace):
    other = replace(trace, token_id=np.array([7, 6, 7, 7, 5]))
    table = np.ma.filled(plot_alternatives(other, 2).images[0].get_array().astype(float), np.nan)
    np.testing.assert_array_equal(table, [[0.9], [0.1], [np.nan]])


@pytest.mark.parametrize("position", [3, -1, 6])
def test_a_position_without_commits_has_no_alternatives(trace, position):
    with pytest.raises(ValueError, match=rf"position {position} was never .* 4 of the positions 0\.\.5"):
        plot_alternatives(trace, position)


@pytest.mark.parametrize(
    "plot", [plot_commit_order, plot_confidence, lambda trace, ax: plot_alternatives(trace, 2, ax=ax)]
)
def test_they_draw_on_the_axes_they_are_given(plot, trace):
    ax = plt.subplots()[1]
    assert plot(trace, ax=ax) is ax


def test_a_revocation_is_a_cross_where_and_when_it_was(trace):
    revoked = replace(trace, revoked_step=np.array([1]), revoked_position=np.array([0]))
    ax = plot_commit_order(revoked)
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), [[0, 1]])
    assert len(ax.collections[0].get_offsets()) == 4
