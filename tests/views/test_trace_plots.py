"""Grid, order, confidence and alternatives are drawn exactly as the trace has them."""

from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.trace_plots import (
    FADED,
    LONGEST_LABEL,
    plot_alternatives,
    plot_commit_order,
    plot_confidence,
    plot_unmasking,
)

MASK = 9


def make_trace(**changes) -> SampleTrace:
    fields = {
        "step": np.arange(4),
        "block": np.zeros(4, int),
        "position": np.array([2, 0, 1, 4]),
        "token_id": np.array([5, 6, 7, 5]),
        "confidence": np.full(4, 0.5),
        "entropy": np.ones(4),
        "alternative_ids": np.zeros((4, 1), int),
        "alternative_probs": np.ones((4, 1)),
        "stops": np.full(4, 6),
        "gen_length": 6,
        "block_length": 3,
        "mask_token_id": MASK,
        "pieces": {5: b" a", 6: b" b", 7: b" c"},
    }
    return SampleTrace(**fields | changes)


def empty_trace() -> SampleTrace:
    """A run without passes."""
    names = ("step", "block", "position", "token_id", "confidence", "entropy", "stops")
    tables = ("alternative_ids", "alternative_probs")
    return make_trace(**{name: getattr(make_trace(), name)[:0] for name in (*names, *tables)})


def drawn_steps(ax) -> np.ndarray:
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan).ravel()


def test_each_position_shows_its_pass_and_its_token():
    ax = plot_unmasking(make_trace(), columns=3)
    np.testing.assert_array_equal(drawn_steps(ax), [1, 2, 0, np.nan, 3, np.nan])
    drawn = [(text.get_text(), *text.get_position()) for text in ax.texts]
    assert drawn == [("b", 0, 0), ("c", 1, 0), ("a", 2, 0), ("a", 1, 1)]


def test_given_tokens_stand_framed_on_blank_cells():
    ax = plot_unmasking(make_trace(given=np.array([MASK, MASK, MASK, 7, MASK, MASK])), columns=3)
    np.testing.assert_array_equal(drawn_steps(ax), [1, 2, 0, np.nan, 3, np.nan])
    drawn = [(text.get_text(), *text.get_position()) for text in ax.texts]
    assert ("c", 0, 1) in drawn
    assert [(patch.get_x() + 0.46, patch.get_y() + 0.42) for patch in ax.patches] == [(0, 1)]


def test_commits_in_the_prompt_are_left_out():
    ax = plot_unmasking(make_trace(position=np.array([-1, 0, 1, 4])), columns=3)
    np.testing.assert_array_equal(drawn_steps(ax), [1, 2, np.nan, np.nan, 3, np.nan])


def test_what_lies_behind_the_end_is_faded():
    ax = plot_unmasking(make_trace(stops=np.array([6, 6, 2, 2])), columns=6)
    np.testing.assert_array_equal(ax.images[0].get_alpha().ravel(), [1, 1, FADED, FADED, FADED, FADED])


def test_a_bar_stands_before_each_later_block():
    ax = plot_unmasking(make_trace(block_length=2), columns=3)
    starts = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert starts == [[1.5, 1.5], [0.5, 0.5]]  # before positions 2 and 4


def test_colour_by_confidence_draws_the_confidence_of_the_last_commit():
    trace = make_trace(position=np.array([2, 0, 2, 4]), confidence=np.array([0.9, 0.5, 0.25, 0.75]))
    shown = drawn_steps(plot_unmasking(trace, colour="confidence"))
    np.testing.assert_array_equal(shown, [0.5, np.nan, 0.25, np.nan, 0.75, *[np.nan] * 3])
    with pytest.raises(ValueError, match=r"'entropy'; allowed are step, confidence"):
        plot_unmasking(trace, colour="entropy")


def test_a_position_that_ends_masked_is_blank():
    ax = plot_unmasking(make_trace(position=np.array([2, 0, 2, 4]), token_id=np.array([5, 6, MASK, 5])))
    assert np.isnan(drawn_steps(ax)[2])
    assert [text.get_text() for text in ax.texts] == ["b", "a"]


def test_pieces_are_text_not_mathematics_and_not_too_long():
    ax = plot_unmasking(make_trace(pieces={5: b"$x_1$", 6: b"\n", 7: b"x" * 40}))
    labels = [text.get_text() for text in ax.texts]
    assert labels[0] == "↵"
    assert len(labels[1]) == LONGEST_LABEL
    assert labels[2] == "$x_1$"
    assert not any(text.get_parse_math() for text in ax.texts)


def test_a_run_without_passes_draws_an_empty_grid():
    ax = plot_unmasking(empty_trace())
    assert not ax.texts
    assert np.isnan(drawn_steps(ax)).all()


def test_a_remasked_token_is_not_drawn():
    remasked = {"remasked_step": np.array([2, 3]), "remasked_position": np.array([2, 0])}
    ax = plot_unmasking(make_trace(position=np.array([2, 0, 1, 2]), **remasked), columns=3)
    np.testing.assert_array_equal(drawn_steps(ax), [np.nan, 2, 3, np.nan, np.nan, np.nan])
    assert [text.get_text() for text in ax.texts] == ["c", "a"]


@pytest.fixture
def trace() -> SampleTrace:
    return make_trace(
        step=np.array([0, 0, 1, 1, 2]),
        block=np.array([0, 0, 0, 0, 1]),
        position=np.array([2, 0, -1, 1, 4]),  # one commit lies in the prompt
        token_id=np.array([5, 6, 7, 7, 5]),
        confidence=np.array([0.9, 0.5, 0.1, 0.4, 0.8]),
        entropy=np.array([0.2, 1.0, 2.0, 1.5, 0.5]),
        alternative_ids=np.array([[5, 6], [6, 5], [7, 5], [7, 6], [5, 7]]),
        alternative_probs=np.array([[0.9, 0.1], [0.5, 0.3], [0.1, 0.1], [0.4, 0.35], [0.8, 0.2]]),
        stops=np.full(3, 6),
    )


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


def test_they_draw_on_the_axes_they_are_given(trace):
    for plot in (plot_unmasking, plot_commit_order, plot_confidence, partial(plot_alternatives, position=2)):
        ax = plt.subplots()[1]
        assert plot(trace, ax=ax) is ax


def test_a_remasking_is_a_cross_where_and_when_it_was(trace):
    remasked = replace(trace, remasked_step=np.array([1]), remasked_position=np.array([0]))
    ax = plot_commit_order(remasked)
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), [[0, 1]])
    assert len(ax.collections[0].get_offsets()) == 4
