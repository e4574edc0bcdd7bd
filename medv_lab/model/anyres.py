"""From the projected features of an image's tiles to the sequence of vectors that the language tower reads.

The cutting into tiles is in `tiles.py`; this is its tensor counterpart after the tower. Sizes of images and
canvases are (width, height); feature maps are (H, rows, columns).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from medv_lab.model.tiles import parse_aspect_ratio, select_best_resolution

REDUCE_ABOVE = 1.1


def merge_tiles(
    features: torch.Tensor,
    newline: torch.Tensor,
    *,
    merge_type: str,
    aspect_ratio: str,
    side: int,
    image_size: tuple[int, int] | None,
    pinpoints: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Arrange the features of one image as one sequence.

    One tile: its patches, and one newline at the end under "spatial_unpad". Several: the whole image (tile 0)
    first, then the other tiles as one map read row by row; under "spatial_unpad" the map loses its padding,
    is reduced bilinearly where "anyres_max_N" asks for it, and each row ends with a newline.

    Args:
        features: (tiles, patches, H), projected.
        newline: (H,), the learned newline vector.
        merge_type: "flat", "spatial" or "spatial_unpad".
        aspect_ratio: the image mode; "anyres_max_N" bounds the map.
        side: pixels along a tile.
        image_size: (width, height) of the original image; needed for several tiles unless "flat".
        pinpoints: candidate canvases (width, height) that the tiles were cut from.

    Returns:
        (length, H).

    Raises:
        ValueError: if the tiles do not fit the canvas of this image size, or the size is missing.
    """
    tiles, patches, hidden = features.shape
    unpad = "unpad" in merge_type
    if tiles == 1:
        return torch.cat([features[0], newline[None]]) if unpad else features[0]
    if merge_type == "flat":
        return features.flatten(0, 1)
    if image_size is None:
        raise ValueError(
            f"an image of {tiles} tiles needs its original size: give image_sizes=[(width, height), ...]"
        )
    canvas = select_best_resolution(image_size, pinpoints)
    columns, rows = canvas[0] // side, canvas[1] // side
    if columns * rows != tiles - 1:
        raise ValueError(
            f"an image of size {tuple(image_size)} is cut into 1 + {columns * rows} tiles, but {tiles} "
            "were given: "
            "image_sizes must hold the (width, height) from which pixel_values were made, in the same order"
        )
    unit = math.isqrt(patches)
    grid = features[1:].view(rows, columns, unit, unit, hidden).permute(4, 0, 2, 1, 3)
    grid = grid.reshape(hidden, rows * unit, columns * unit)
    if unpad:
        grid = reduce_map(unpad_map(grid, image_size), unit, parse_aspect_ratio(aspect_ratio)[1])
        grid = torch.cat([grid, newline[:, None, None].expand(-1, grid.shape[1], 1)], dim=2)
    return torch.cat([features[0], grid.flatten(1).T])


def unpad_map(grid: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Crop a map (H, rows, columns) to the part that the image of (width, height) filled, up to rounding."""
    width, height = image_size
    rows, columns = grid.shape[1:]
    if width / height > columns / rows:
        margin = (rows - int(height * (columns / width))) // 2
        return grid[:, margin : rows - margin, :]
    margin = (columns - int(width * (rows / height))) // 2
    return grid[:, :, margin : columns - margin]


def reduce_map(grid: torch.Tensor, unit: int, max_tiles: int | None) -> torch.Tensor:
    """Shrink a map (H, rows, columns) bilinearly towards `max_tiles` tiles of `unit` x `unit` patches.

    With f = sqrt(rows columns / (max_tiles unit^2)) above 1.1, the result is (H, rows // f, columns // f).
    """
    rows, columns = grid.shape[1:]
    if max_tiles is None:
        return grid
    factor = math.sqrt(rows * columns / (max_tiles * unit**2))
    if factor <= REDUCE_ABOVE:
        return grid
    size = (int(rows // factor), int(columns // factor))
    return F.interpolate(grid[None], size, mode="bilinear")[0]
