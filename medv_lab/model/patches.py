"""Where the places that an image takes in the sequence lie on the picture: the inverse view of tiles and their merging.

`tiles` cuts, `anyres` merges; this module says of the merged places which patch of the picture each was. Sizes are
(width, height) in pixels.
"""

from collections.abc import Sequence

import torch

from medv_lab.diffusion.attention_maps import PatchGrid
from medv_lab.model.anyres import reduce_map, unpad_map
from medv_lab.model.tiles import fit_size, parse_aspect_ratio, select_best_resolution

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def patch_grids(
    size: tuple[int, int],
    tiles: int,
    *,
    image: int,
    start: int,
    is_padded: bool,
    merge_type: str,
    aspect_ratio: str,
    side: int,
    patch_size: int,
    pinpoints: Sequence[Sequence[int]],
) -> tuple[PatchGrid, ...]:
    """The grids of one image, in the order of its places.

    The grid of the whole image comes first; the patches of the other tiles follow, as one grid (or one a tile where
    tiles are not merged). Of those, the box takes patches for evenly spread over the tile, as the merging does.

    Args:
        size: of the picture.
        tiles: how many it was cut into.
        image: its number in the prompt.
        start: its first place, counted over all places that hold pictures.
        is_padded: whether a single tile was padded to a square.
        merge_type, aspect_ratio, pinpoints: as in `merge_tiles`.
        side, patch_size: pixels along a tile and along a patch.
    """
    unit = side // patch_size
    seen = unit * patch_size / side  # the convolution drops what is less than a patch
    left, top, right, bottom = _padded_square(size) if is_padded and tiles == 1 else WHOLE
    base_box = (left, top, left + seen * (right - left), top + seen * (bottom - top))
    grids = [PatchGrid(image, start, unit, unit, unit, base_box)]
    if tiles == 1:
        return tuple(grids)
    start += unit * unit
    canvas = select_best_resolution(size, pinpoints)
    columns, rows = canvas[0] // side, canvas[1] // side
    if merge_type == "flat":
        for number in range(rows * columns):
            row, column = divmod(number, columns)
            box = _on_canvas(size, canvas, column * side, row * side, (column + 1) * side, (row + 1) * side)
            grids.append(PatchGrid(image, start + number * unit * unit, unit, unit, unit, box))
        return tuple(grids)
    whole = torch.empty(1, rows * unit, columns * unit, device="meta")
    kept, newline = whole, 0
    if "unpad" in merge_type:
        kept, newline = unpad_map(whole, size), 1
    pitch = side / unit
    cut_x = (whole.shape[2] - kept.shape[2]) / 2 * pitch
    cut_y = (whole.shape[1] - kept.shape[1]) / 2 * pitch
    box = _on_canvas(size, canvas, cut_x, cut_y, canvas[0] - cut_x, canvas[1] - cut_y)
    if newline:
        kept = reduce_map(kept, unit, parse_aspect_ratio(aspect_ratio)[1])
    grids.append(PatchGrid(image, start, kept.shape[1], kept.shape[2], kept.shape[2] + newline, box))
    return tuple(grids)


def _padded_square(size: tuple[int, int]) -> Box:
    longest = max(size)
    left, top = ((longest - length) // 2 for length in size)
    return -left / size[0], -top / size[1], (longest - left) / size[0], (longest - top) / size[1]


def _on_canvas(
    size: tuple[int, int], canvas: tuple[int, int], left: float, top: float, right: float, bottom: float
) -> Box:
    """Pixels of a canvas, in fractions of the picture that was fitted into its middle."""
    fitted = fit_size(size, canvas)
    at_x, at_y = ((whole - length) // 2 for whole, length in zip(canvas, fitted, strict=True))
    return (
        (left - at_x) / fitted[0],
        (top - at_y) / fitted[1],
        (right - at_x) / fitted[0],
        (bottom - at_y) / fitted[1],
    )
