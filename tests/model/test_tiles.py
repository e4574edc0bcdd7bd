"""Properties of the image paths (the recorded numbers are checked by the parity suite)."""

import numpy as np
import pytest
from PIL import Image

from medv_lab.model import tiles


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(1).randint(0, 256, (height, width, 3)).astype(np.uint8))


def test_square_image_of_the_right_side_is_untouched():
    image = picture(56, 56)
    for cut in (tiles.square, tiles.pad_to_square):
        assert np.array_equal(cut(image, 56), np.asarray(image))


def test_padding_centres_the_image_on_grey():
    padded = tiles.pad_to_square(picture(56, 20), 56)
    assert np.array_equal(padded[18:38], np.asarray(picture(56, 20)))
    assert (padded[:18] == 127).all()
    assert (padded[38:] == 127).all()


def test_tiles_put_together_are_the_canvas_of_an_image_that_fits_exactly():
    image = picture(112, 168)
    cut = tiles.anyres(image, tiles.grid_pinpoints(56), 56)
    assert cut.shape == (7, 56, 56, 3)
    assert np.array_equal(cut[0], tiles.square(image, 56))
    rows = [np.concatenate(cut[1 + 2 * row : 3 + 2 * row], axis=1) for row in range(3)]
    assert np.array_equal(np.concatenate(rows), np.asarray(image))


def test_best_resolution_prefers_no_loss_then_no_waste():
    assert tiles.select_best_resolution((100, 100), [(50, 50), (200, 200), (100, 100)]) == (100, 100)
    assert tiles.select_best_resolution((100, 40), [(100, 100), (100, 50)]) == (100, 50)
    with pytest.raises(ValueError, match="at least one"):
        tiles.select_best_resolution((1, 1), [])


def test_pixel_values_span_minus_one_to_one():
    values = tiles.to_pixel_values(np.array([[[0, 255, 127]]], dtype=np.uint8))
    assert values.dtype == np.float32
    assert values.shape == (3, 1, 1)
    assert values.ravel() == pytest.approx([-1, 1, 127 / 127.5 - 1], abs=1e-6)


@pytest.mark.parametrize("mode", ["", "anyres_max_", "anyres_max_x", "Square", "anyres_9"])
def test_unknown_mode_names_the_allowed_ones(mode):
    with pytest.raises(ValueError, match="allowed are 'square', 'pad'"):
        tiles.parse_aspect_ratio(mode)


def test_modes_and_their_numbers():
    assert [tiles.parse_aspect_ratio(m) for m in ("pad", "anyres", "anyres_max_9")] == [
        ("pad", None),
        ("anyres", None),
        ("anyres", 9),
    ]
