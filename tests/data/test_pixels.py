"""Parts that the image decoders share: windows of deep grey, and whose errors are reported."""

import numpy as np
import pytest

from medv_lab.data.pixels import ImageError, reporting, window_grey


def test_a_window_follows_no_outlier_and_keeps_the_order():
    values = np.random.default_rng(0).normal(1000, 50, (100, 100))
    values[0, 0] = 1e6
    grey = window_grey("x", values)
    assert (grey.min(), grey.max(), grey[0, 0]) == (0, 255, 255)
    assert abs(int(np.median(grey)) - 128) <= 4
    assert (np.diff(grey.ravel()[values.ravel().argsort()].astype(int)) >= 0).all()
    assert np.array_equal(grey, window_grey("x", 3 * values - 7))  # units and offset do not matter


def test_windows_of_almost_flat_pictures():
    assert window_grey("x", np.full((4, 4), 7000, np.uint16)).max() == 0
    one_bright = np.zeros((100, 100), np.int16)
    one_bright[3, 4] = 9
    assert window_grey("x", one_bright)[3, 4] == 255


def test_only_a_decoder_s_own_errors_are_reported():
    message = r"^x cannot be decoded \(KeyError: 1\)\. Look\.$"
    with pytest.raises(ImageError, match=message), reporting((KeyError,), "x", "Look."):
        raise KeyError(1)
    with pytest.raises(IndexError), reporting((KeyError,), "x", "Look."):
        raise IndexError
