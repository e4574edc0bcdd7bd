"""The unmasking grid draws exactly the trace."""

import matplotlib.pyplot as plt
import numpy as np

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.unmasking import plot_unmasking

MASK = 9


def make_trace() -> SampleTrace:
    order = np.array([2, 0, 1, 4])
    return SampleTrace(
        step=np.arange(4),
        block=np.zeros(4, int),
        position=order,
        token_id=np.array([5, 6, 7, 5]),
        confidence=np.full(4, 0.5),
        entropy=np.ones(4),
        alternative_ids=np.zeros((4, 1), int),
        alternative_probs=np.ones((4, 1)),
        stops=np.full(4, 6),
        gen_length=6,
        block_length=6,
        mask_token_id=MASK,
        pieces={5: b" a", 6: b" b", 7: b" c"},
    )


def test_each_position_shows_its_pass_and_its_token():
    ax = plot_unmasking(make_trace(), columns=3)
    drawn = np.asarray(ax.images[0].get_array().filled(np.nan)).ravel()
    np.testing.assert_array_equal(drawn, [1, 2, 0, np.nan, 3, np.nan])
    assert [text.get_text() for text in ax.texts] == ["b", "c", "a", "a"]
    plt.close(ax.figure)


def test_it_draws_on_the_axes_it_is_given():
    figure, ax = plt.subplots()
    assert plot_unmasking(make_trace(), ax=ax) is ax
    plt.close(figure)
