"""Properties of tiles and their layout (the recorded numbers are checked by the parity suite)."""

import numpy as np
import pytest
import torch
from PIL import Image

from medv_lab.inputs.image_features import pack_image_features
from medv_lab.inputs.tiling import (
    TileLayout,
    cut_tiles,
    grid_pinpoints,
    parse_aspect_ratio,
    plan_tiles,
)

MERGE_TYPES = pytest.mark.parametrize("merge_type", ["spatial_unpad", "spatial", "flat"])


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(1).randint(0, 256, (height, width, 3)).astype(np.uint8))


def plan(size, mode, merge_type="spatial_unpad", side=56, patch=14, limit=6) -> TileLayout:
    pinpoints = grid_pinpoints(side, limit)
    return plan_tiles(
        size, aspect_ratio=mode, merge_type=merge_type, tile_size=side, patch_size=patch, pinpoints=pinpoints
    )


def cut(image: Image.Image, mode: str, **sizes) -> np.ndarray:
    """The tiles as uint8 (tiles, side, side, 3)."""
    values = cut_tiles(image, plan(image.size, mode, **sizes))
    assert values.dtype == np.float32
    return np.moveaxis(np.rint((values * 0.5 + 0.5) * 255).astype(np.uint8), 1, -1)


def test_square_image_of_the_right_side_is_untouched():
    image = picture(56, 56)
    for mode in ("square", "pad"):
        assert np.array_equal(cut(image, mode), np.asarray(image)[None])


def test_padding_centres_the_image_on_grey():
    (padded,) = cut(picture(56, 20), "pad")
    assert np.array_equal(padded[18:38], np.asarray(picture(56, 20)))
    assert (padded[:18] == 127).all()
    assert (padded[38:] == 127).all()


def test_tiles_put_together_are_the_canvas_of_an_image_that_fits_exactly():
    image = picture(112, 168)
    tiles = cut(image, "anyres")
    assert tiles.shape == (7, 56, 56, 3)
    assert np.array_equal(tiles[:1], cut(image, "square"))
    rows = [np.concatenate(tiles[1 + 2 * row : 3 + 2 * row], axis=1) for row in range(3)]
    assert np.array_equal(np.concatenate(rows), np.asarray(image))


def test_the_canvas_keeps_the_pixels_and_wastes_few():
    sizes = {"merge_type": "flat", "tile_size": 56, "patch_size": 14}
    for size, canvas in [((100, 100), (112, 112)), ((112, 56), (112, 56)), ((50, 160), (56, 168))]:
        assert plan(size, "anyres").canvas == canvas
        candidates = [[224, 224], list(canvas)]
        assert plan_tiles(size, aspect_ratio="anyres", pinpoints=candidates, **sizes).canvas == canvas


@pytest.mark.parametrize("mode", ["", "anyres_max_", "anyres_max_x", "Square", "anyres_9"])
def test_unknown_mode_names_the_allowed_ones(mode):
    with pytest.raises(ValueError, match="allowed are 'square', 'pad'"):
        parse_aspect_ratio(mode)


@pytest.mark.parametrize("mode", ["square", "pad", "anyres", "anyres_max_1", "anyres_max_4"])
@MERGE_TYPES
def test_a_layout_says_how_many_tiles_and_positions_there_are(mode, merge_type):
    for size in [(40, 30), (200, 33), (64, 190), (1, 300), (56, 56)]:
        layout = plan(size, mode, merge_type)
        tiles = cut_tiles(picture(*size), layout)
        assert len(tiles) == layout.num_tiles
        features = torch.zeros(layout.num_tiles, layout.patches_per_side**2, 2)
        assert len(pack_image_features(features, layout, torch.zeros(2))) == layout.num_positions


def ramp(size: tuple[int, int]) -> Image.Image:
    """A picture whose red rises from left to right and whose green rises from top to bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


def patch_means(tiles: np.ndarray, patch: int) -> np.ndarray:
    """Mean colour of each patch (tiles, patches, 3), of uint8 tiles (tiles, side, side, 3)."""
    unit = tiles.shape[1] // patch
    cut = tiles[:, : unit * patch, : unit * patch].reshape(len(tiles), unit, patch, unit, patch, 3)
    return cut.mean((2, 4)).reshape(len(tiles), unit * unit, 3)


@pytest.mark.parametrize("size", [(70, 50), (50, 90), (64, 64), (200, 60)])
@MERGE_TYPES
@pytest.mark.parametrize("mode", ["anyres", "anyres_max_1"])
def test_grids_lie_where_the_patches_came_from(size, merge_type, mode):
    side, patch = 30, 7  # the convolution drops the last 2 pixels, as the published one drops 6
    layout = plan(size, mode, merge_type, side, patch, limit=4)
    features = torch.from_numpy(patch_means(cut(ramp(size), mode, side=side, patch=patch, limit=4), patch))
    newline = torch.full((3,), -1.0, dtype=features.dtype)
    packed = pack_image_features(features, layout, newline).numpy()
    grids = layout.patch_grids()
    used = np.concatenate([grid.indices().ravel() for grid in grids])
    is_newline = (packed == -1).all(1)
    assert sorted(used) == np.flatnonzero(~is_newline).tolist()
    for number, grid in enumerate(grids):
        left, top, right, bottom = grid.box
        x = left + (np.arange(grid.columns) + 0.5) / grid.columns * (right - left)
        y = top + (np.arange(grid.rows) + 0.5) / grid.rows * (bottom - top)
        colours = packed[grid.indices()]
        inside = np.ix_((y > 0.15) & (y < 0.85), (x > 0.15) & (x < 0.85))  # away from padding
        # boxes of tiles are exact up to the pixels that the convolution drops: less than half a patch
        wide, high = (right - left) / grid.columns / 2, (bottom - top) / grid.rows / 2
        if number == 0:
            wide, high = wide / 8, high / 8
        assert np.abs(colours[..., 0] - 255 * x)[inside].max(initial=0) <= 255 * wide
        assert np.abs(colours[..., 1] - 255 * y[:, None])[inside].max(initial=0) <= 255 * high


@pytest.mark.parametrize("size", [(60, 30), (30, 60), (40, 40)])
def test_a_padded_square_reaches_beyond_the_picture(size):
    side, patch = 30, 7
    means = patch_means(cut(ramp(size), "pad", side=side, patch=patch), patch)[0]
    (grid,) = plan(size, "pad", "flat", side, patch).patch_grids()
    left, top, right, bottom = grid.box
    x = left + (np.arange(grid.columns) + 0.5) / grid.columns * (right - left)
    y = top + (np.arange(grid.rows) + 0.5) / grid.rows * (bottom - top)
    inside = np.ix_((y > 0.2) & (y < 0.8), (x > 0.2) & (x < 0.8))
    colours = means[grid.indices()]
    assert inside[0].size and inside[1].size
    assert np.abs(colours[..., 0] - 255 * x)[inside].max() < 6
    assert np.abs(colours[..., 1] - 255 * y[:, None])[inside].max() < 6
