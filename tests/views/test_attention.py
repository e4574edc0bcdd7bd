"""The overlay draws exactly the recorded shares, where the patches lie."""

import numpy as np
import pytest

from medv_lab.views.attention import OPACITY, plot_patch_attention
from tests.diffusion.test_attention_maps import GRIDS, make_attention
from tests.views.test_trace_plots import make_trace

PICTURE = np.zeros((40, 80, 3), np.uint8)


def traced(**changes):
    return make_trace(attention=make_attention(), **changes)


@pytest.mark.parametrize(("steps", "commits"), [(None, [0, 1, 2, 3]), ((1,), [1]), (range(2, 9), [2, 3])])
@pytest.mark.parametrize("maps", [None, (3,)])
@pytest.mark.parametrize("grid", [0, 1])
def test_it_draws_the_mean_shares(steps, commits, maps, grid):
    trace = traced()
    ax = plot_patch_attention(trace, PICTURE, steps=steps, maps=maps, grid=grid)
    wanted = trace.attention.mean(np.array(commits), maps)[GRIDS[grid].indices()]
    np.testing.assert_allclose(ax.images[1].get_array(), wanted)
    np.testing.assert_allclose(ax.images[1].get_alpha(), OPACITY * wanted / wanted.max())


def test_it_lies_where_the_patches_lie_and_shows_the_whole_picture():
    ax = plot_patch_attention(traced(), PICTURE, grid=1)
    assert ax.images[1].get_extent() == [0, 80, 30, 10]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 80), (40, 0))
    np.testing.assert_array_equal(ax.images[0].get_array(), PICTURE)


def test_commits_in_the_prompt_do_not_count():
    trace = traced(position=np.array([-1, 0, 1, 4]))
    ax = plot_patch_attention(trace, PICTURE)
    np.testing.assert_allclose(
        ax.images[1].get_array(), trace.attention.mean(np.array([1, 2, 3]))[GRIDS[0].indices()]
    )


@pytest.mark.parametrize(
    ("trace", "choice", "message"),
    [
        (make_trace(), {}, "record_attention=True"),
        (traced(), {"grid": 2}, "grids 0..1"),
        (traced(), {"steps": (7,)}, r"choose among \[0, 1, 2, 3\]"),
        (traced(), {"maps": (1,)}, "recorded are 0, 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(trace, choice, message):
    with pytest.raises(ValueError, match=message):
        plot_patch_attention(trace, PICTURE, **choice)
