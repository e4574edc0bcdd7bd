"""Images to pixel tensors: the square, padded and any-resolution paths of the published system.

Everything up to the last step stays uint8, because the resize is Pillow's and its rounding is part of
the result. Knows no tokenizer and no model; needs NumPy and Pillow only.

Sizes of images and resolutions are (width, height); arrays are (height, width, 3) or (3, side, side).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

PAD_GREY = (127, 127, 127)
GRID_LIMIT = 6
_ANYRES = re.compile(r"anyres(?:_max_(\d+))?")


def square(image: Image.Image, side: int) -> np.ndarray:
    """Squash an image to a square, whatever its shape.

    Args:
        image: any RGB image.
        side: side of the result in pixels.

    Returns:
        uint8 (side, side, 3), Pillow bicubic.
    """
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def pad_to_square(image: Image.Image, side: int) -> np.ndarray:
    """Centre an image on a grey (127) square, then resize it.

    Returns:
        uint8 (side, side, 3); the offset is half of the difference of the sides, rounded down.
    """
    image = image.convert("RGB")
    width, height = image.size
    longest = max(width, height)
    canvas = Image.new("RGB", (longest, longest), PAD_GREY)
    canvas.paste(image, ((longest - width) // 2, (longest - height) // 2))
    return square(canvas, side)


def grid_pinpoints(side: int, limit: int = GRID_LIMIT) -> list[tuple[int, int]]:
    """All (width, height) = (i side, j side) with i, j = 1..limit, i outer: the published 36 candidates."""
    return [(side * i, side * j) for i in range(1, limit + 1) for j in range(1, limit + 1)]


def select_best_resolution(size: tuple[int, int], candidates: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Choose the canvas that keeps most of an image's pixels, then the one that wastes fewest.

    Args:
        size: (width, height) of the image.
        candidates: allowed canvases as (width, height); of equals, the first wins.

    Returns:
        (width, height) of the chosen canvas.

    Raises:
        ValueError: if there are no candidates.
    """
    if not candidates:
        raise ValueError("no candidate resolutions were given; give at least one (width, height)")
    width, height = size

    def merit(canvas: tuple[int, int]) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas[0] * canvas[1]

    return tuple(max(candidates, key=merit))


def anyres(image: Image.Image, pinpoints: Sequence[tuple[int, int]], side: int) -> np.ndarray:
    """Cut an image into tiles of one side, the whole image squashed to one tile first.

    The image is fitted into the best canvas of `pinpoints` (aspect kept, centred on black) and the canvas
    is cut row by row.

    Args:
        image: any RGB image.
        pinpoints: candidate canvases (width, height), multiples of `side`.
        side: side of a tile in pixels.

    Returns:
        uint8 (1 + tiles, side, side, 3).
    """
    image = image.convert("RGB")
    canvas_size = select_best_resolution(image.size, pinpoints)
    canvas = np.asarray(_fit_on_black(image, canvas_size))
    columns, rows = canvas_size[0] // side, canvas_size[1] // side
    tiles = canvas.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return np.concatenate([square(image, side)[None], tiles])


def fit_size(size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) with the aspect of an image of `size` that fits a canvas."""
    width, height = size
    scale_x, scale_y = canvas_size[0] / width, canvas_size[1] / height
    if scale_x < scale_y:
        return canvas_size[0], min(math.ceil(height * scale_x), canvas_size[1])
    return min(math.ceil(width * scale_y), canvas_size[0]), canvas_size[1]


def _fit_on_black(image: Image.Image, canvas_size: tuple[int, int]) -> Image.Image:
    fitted = fit_size(image.size, canvas_size)
    canvas = Image.new("RGB", canvas_size, (0, 0, 0))
    offset = ((canvas_size[0] - fitted[0]) // 2, (canvas_size[1] - fitted[1]) // 2)
    canvas.paste(image.resize(fitted, Image.Resampling.BICUBIC), offset)
    return canvas


def to_pixel_values(pixels: np.ndarray) -> np.ndarray:
    """Scale uint8 pixels to [-1, 1] and put channels first.

    Args:
        pixels: uint8 (..., side, side, 3).

    Returns:
        float32 (..., 3, side, side): x / 255, minus 0.5, divided by 0.5.
    """
    scaled = (pixels * (1 / 255)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis((scaled - np.float32(0.5)) / np.float32(0.5), -1, -3))


def parse_aspect_ratio(aspect_ratio: str) -> tuple[str, int | None]:
    """Split an image mode into its kind and, for `anyres_max_N`, the N.

    Returns:
        ("square" | "pad" | "anyres", N or None).

    Raises:
        ValueError: for any other text.
    """
    if aspect_ratio in ("square", "pad"):
        return aspect_ratio, None
    match = _ANYRES.fullmatch(aspect_ratio)
    if match is None:
        raise ValueError(
            f"image_aspect_ratio is {aspect_ratio!r}; allowed are 'square', 'pad', 'anyres' and "
            "'anyres_max_N' with a whole number N, as in 'anyres_max_4'"
        )
    return "anyres", int(match[1]) if match[1] else None


def count_tiles(
    size: tuple[int, int], aspect_ratio: str, side: int, pinpoints: Sequence[tuple[int, int]]
) -> int:
    """How many tiles `prepare` makes of an image of (width, height)."""
    if parse_aspect_ratio(aspect_ratio)[0] != "anyres":
        return 1
    width, height = select_best_resolution(size, pinpoints)
    return 1 + (width // side) * (height // side)


def prepare(
    image: Image.Image, aspect_ratio: str, side: int, pinpoints: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Turn one image into the pixel values of its tiles.

    Args:
        image: any RGB image.
        aspect_ratio: "square", "pad", "anyres" or "anyres_max_N" (N matters after the tower only).
        side: side of a tile in pixels.
        pinpoints: candidate canvases (width, height), read for anyres only.

    Returns:
        float32 (tiles, 3, side, side); one tile unless the mode is anyres.
    """
    kind, _ = parse_aspect_ratio(aspect_ratio)
    if kind == "anyres":
        return to_pixel_values(anyres(image, pinpoints, side))
    cut = square if kind == "square" else pad_to_square
    return to_pixel_values(cut(image, side))[None]
