"""Recorded attention as data: means over commits and maps, and what is refused."""

import json

import numpy as np
import pytest

from medv_lab.diffusion.attention_maps import PatchAttention, PatchGrid
from medv_lab.diffusion.trace import SampleTrace, TraceError
from tests.views.test_trace_plots import make_trace

GRIDS = (PatchGrid(0, 0, 2, 2, 2, (0, 0, 1, 1)), PatchGrid(0, 4, 2, 3, 4, (0, 0.25, 1, 0.75)))


def make_attention(commits: int = 4, maps: tuple = (0, 3), places: int = 12) -> PatchAttention:
    values = np.random.default_rng(0).random((commits, len(maps), places)) / places
    return PatchAttention(maps, values.astype(np.float16), GRIDS)


def test_a_grid_knows_its_places():
    assert GRIDS[0].indices().tolist() == [[0, 1], [2, 3]]
    assert GRIDS[1].indices().tolist() == [[4, 5, 6], [8, 9, 10]]  # 7 and 11 are newlines


@pytest.mark.parametrize("maps", [None, (0,), (3, 0)])
def test_the_mean_is_over_the_commits_and_maps_asked_for(maps):
    attention = make_attention()
    chosen = np.array([True, False, True, False])
    at = [attention.maps.index(name) for name in maps or attention.maps]
    wanted = np.stack([attention.values[n, k].astype(float) for n in (0, 2) for k in at]).mean(0)
    np.testing.assert_allclose(attention.mean(chosen, maps), wanted)
    np.testing.assert_allclose(attention.mean(np.array([0, 2]), maps), wanted)
    assert np.isnan(attention.mean(np.zeros(4, bool))).all()


ENDLESS = (  # grids of indices that no memory holds, or of none that is recorded
    PatchGrid(0, 0, 10**9, 10**9, 10**9, (0, 0, 1, 1)),
    PatchGrid(0, 0, 10**9, 0, 0, (0, 0, 1, 1)),
    PatchGrid(0, -5, 2, 2, 2, (0, 0, 1, 1)),
    PatchGrid(0, 0, 2, 8, 1, (0, 0, 1, 1)),
    PatchGrid(0, 10**30, 1, 1, 1, (0, 0, 1, 1)),
)


@pytest.mark.parametrize("maps", [(1,), (), ("rollout",)])
def test_maps_that_were_not_recorded_are_refused(maps):
    with pytest.raises(ValueError, match="recorded are 0, 3"):
        make_attention().mean(np.arange(4), maps)


@pytest.mark.parametrize(
    "parts",
    [
        ((0,), np.zeros((4, 2, 12), np.float16), GRIDS),
        ((0, 3), np.zeros((4, 2, 12), int), GRIDS),
        ((0, 3), np.zeros((4, 12), np.float16), GRIDS),
        ((0, 3), np.zeros((4, 2, 10), np.float16), GRIDS),
        *(((0, 3), np.zeros((4, 2, 12), np.float16), (grid,)) for grid in ENDLESS),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts):
    with pytest.raises(ValueError, match="attention values|reaches beyond"):
        PatchAttention(*parts)


def test_a_trace_takes_attention_of_its_own_commits_only():
    assert make_trace(attention=make_attention()).attention is not None
    with pytest.raises(TraceError, match="5 commits and 4"):
        make_trace(attention=make_attention(5))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"maps"', '"mops"'), ('"row_length": 2', '"row_length": "x"'), ("[0, 0, 1, 1]", "[0, 0]")],
)
def test_damaged_attention_is_refused_by_name(tmp_path, old, new):
    path = make_trace(attention=make_attention()).save(tmp_path / "t.npz")
    assert SampleTrace.load(path).attention.grids == GRIDS
    with np.load(path) as file:
        arrays = dict(file)
    text = str(arrays["meta"])
    assert old in text and json.loads(text)
    np.savez(path, **{**arrays, "meta": np.array(text.replace(old, new))})
    with pytest.raises(TraceError, match=r"t\.npz"):
        SampleTrace.load(path)
