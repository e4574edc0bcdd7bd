"""Parts that the image decoders share: windows of deep grey."""

import numpy as np

from medv_lab.data.pixels import window_grey


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
