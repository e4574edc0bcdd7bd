"""Parts that the image decoders share: windows of deep grey."""

import numpy as np
import pytest

from medv_lab.data.pixels import count_levels, find_percentiles, grey_range, window_grey


def test_a_window_follows_no_outlier_and_keeps_the_order():
    values = np.random.default_rng(0).normal(1000, 50, (100, 100))
    values[0, 0] = 1e6
    grey = window_grey(values)
    assert (grey.min(), grey.max(), grey[0, 0]) == (0, 255, 255)
    assert abs(int(np.median(grey)) - 128) <= 4
    assert (np.diff(grey.ravel()[values.ravel().argsort()].astype(int)) >= 0).all()
    assert np.array_equal(grey, window_grey(3 * values - 7))  # units and offset do not matter


def test_windows_of_almost_flat_pictures():
    assert window_grey(np.full((4, 4), 7000, np.uint16)).max() == 0
    one_bright = np.zeros((100, 100), np.int16)
    one_bright[3, 4] = 9
    assert window_grey(one_bright)[3, 4] == 255


def test_padding_and_far_values_are_outside_the_window():
    values = np.linspace(0, 100, 10_000).reshape(100, 100)
    padding = np.zeros((100, 100), bool)
    padding[:40] = True
    grey = window_grey(np.where(padding, np.nan, values), padding=padding)
    assert grey[:40].max() == 0 and np.array_equal(grey[40:], window_grey(values[40:]))
    values[:2], notes = 1e4, []
    assert np.array_equal(window_grey(values, notes)[2:], window_grey(values[2:]))
    assert "The value 10000" in notes[0] and len(notes) == 2


def test_a_mask_has_no_far_values():
    mask = np.zeros((50, 50), np.int32)
    mask[10:20, 10:20] = 500
    notes = []
    assert window_grey(mask, notes)[15, 15] == 255 and len(notes) == 1


def test_the_middle_of_the_greys():
    grey = np.repeat(np.arange(256, dtype=np.uint8), 1000)
    assert grey_range(grey) == (1, 254, 254)
    assert grey_range(np.full((9, 9), 77, np.uint8)) == (77, 77, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("most", [1, 40, 40_000])
def test_counted_values_have_the_percentiles_of_all_pixels(dtype, most):
    rng = np.random.default_rng(most)
    for _ in range(20):
        limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo(np.int64)
        values = np.clip(rng.normal(0, most, rng.integers(1, 60, 2)), limits.min, limits.max).astype(dtype)
        levels, counts = count_levels(values)
        assert np.array_equal(np.repeat(levels, counts), np.sort(values, axis=None))
        turned = rng.permutation(len(levels))
        assert find_percentiles(levels[turned], counts[turned]) == tuple(np.percentile(values, (0.5, 99.5)))
