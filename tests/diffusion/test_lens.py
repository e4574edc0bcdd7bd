"""A lens as data: what fits together, to and from a file, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from medv_lab.diffusion.lens import LENS_ARRAYS, LogitLens
from medv_lab.diffusion.trace import SampleTrace, TraceError
from tests.views.test_trace_plots import make_trace


def make_lens(layers: tuple = (0, 2), passes: int = 4, length: int = 6) -> LogitLens:
    random = np.random.default_rng(0)
    shape = (passes, len(layers), length)
    numbers = {"token_id": random.integers(5, 8, shape), "final_rank": random.integers(1, 9, shape)}
    arrays = {
        name: numbers.get(name, random.random(shape)).astype(kind) for name, kind in LENS_ARRAYS.items()
    }
    return LogitLens(layers, **arrays)


def test_a_lens_is_read_back_from_a_file_whole(tmp_path):
    lens = make_lens()
    loaded = SampleTrace.load(make_trace(lens=lens).save(tmp_path / "t.npz")).lens
    assert loaded.layers == lens.layers
    for name, kind in LENS_ARRAYS.items():
        assert np.array_equal(getattr(loaded, name), getattr(lens, name))
        assert getattr(loaded, name).dtype == kind
    assert SampleTrace.load(make_trace().save(tmp_path / "t.npz")).lens is None


@pytest.mark.parametrize(
    "change",
    [
        {"layers": (0,)},
        {"entropy": np.zeros((4, 2, 5), np.float32)},
        {"entropy": np.zeros((4, 2, 6))},
        {"final_rank": np.zeros((4, 12), np.int32)},
    ],
)
def test_parts_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match="of a lens has the shape"):
        replace(make_lens(), **change)


def test_a_trace_takes_a_lens_of_its_own_passes_and_positions_only():
    for lens in (make_lens(passes=3), make_lens(length=5)):
        with pytest.raises(TraceError, match="a lens of the shape"):
            make_trace(lens=lens)


def test_a_damaged_lens_is_refused_by_name(tmp_path):
    path = make_trace(lens=make_lens()).save(tmp_path / "t.npz")
    with np.load(path) as file:
        arrays = dict(file)
    text = str(arrays["meta"])
    assert '"lens": [0, 2]' in text
    for changed in (
        {"meta": np.array(text.replace('"lens": [0, 2]', '"lens": [0, "x"]'))},
        {"lens_entropy": arrays["lens_entropy"][:, :1]},
    ):
        np.savez(path, **arrays | changed)
        with pytest.raises(TraceError, match=r"t\.npz"):
            SampleTrace.load(path)
