"""The lens as it is drawn: the cells, the tokens in them, and what is refused."""

import numpy as np
import pytest

from medv_lab.views.lens_plots import plot_lens
from tests.diffusion.test_lens import make_lens
from tests.views.test_trace_plots import make_trace


def cells(ax) -> np.ndarray:
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


@pytest.fixture
def trace():
    return make_trace(lens=make_lens())


def test_a_pass_is_layers_by_positions_with_the_tokens_in_them(trace):
    ax = plot_lens(trace, step=1)
    np.testing.assert_array_equal(cells(ax), trace.lens.final_probability[1])
    texts = np.array([text.get_text() for text in ax.texts]).reshape(2, 6)
    assert texts.tolist() == [[trace.piece(token).strip() for token in row] for row in trace.lens.token_id[1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2"]


def test_a_position_is_layers_by_passes_and_a_line_says_when_it_was_filled(trace):
    ax = plot_lens(trace, position=1, colour="rank")
    np.testing.assert_allclose(cells(ax), np.log10(trace.lens.final_rank[:, :, 1].T))
    assert [line.get_xdata()[0] for line in ax.lines] == [2.5]  # committed in pass 2


def test_without_either_it_is_the_mean_over_what_was_masked_before_the_pass(trace):
    ax = plot_lens(trace, colour="entropy")
    assert not ax.texts
    masked = [np.setdiff1d(range(6), trace.position[:step]) for step in range(4)]
    wanted = [[trace.lens.entropy[step, layer, masked[step]].mean() for step in range(4)] for layer in (0, 1)]
    np.testing.assert_allclose(cells(ax), wanted, rtol=1e-6)


def test_what_was_not_computed_stays_blank(trace):
    trace.lens.final_probability[1, :, 3] = np.nan
    trace.lens.token_id[1, :, 3] = -1
    ax = plot_lens(trace, step=1)
    assert np.isnan(cells(ax)[:, 3]).all()
    assert [text.get_text() for text in ax.texts if text.get_position()[0] == 3] == ["", ""]
    assert not np.isnan(cells(plot_lens(trace))).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 4}, "steps 0..3"),
        ({"position": -1}, "positions 0..5"),
        ({"step": 0, "position": 0}, "give one of them"),
        ({"colour": "red"}, "allowed are probability, entropy, rank"),
    ],
)
def test_what_is_not_there_is_refused(trace, arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_lens(trace, **arguments)


def test_a_trace_without_a_lens_says_how_to_get_one():
    with pytest.raises(ValueError, match="record_hidden=True"):
        plot_lens(make_trace())
