"""Images to tiles: the square, padded and any-resolution paths of the published system.

The geometry is decided once, by `plan_tiles`: its `TileLayout` says how the pixels are cut (`cut_tiles`), how the
features of the tiles are packed into one sequence (`image_features.pack_image_features`), how many positions that
takes, and which part of the picture each of them saw (`TileLayout.patch_grids`). Knows no tokenizer and no model.

Sizes of images and canvases are (width, height) in pixels; grids and maps are (rows, columns).

Source: anyres of LLaVA-OneVision (arXiv 2408.03326) as published with LLaDA-V. Its rounding is part of the result:
transformers' `unpad_image` and `get_anyres_image_grid_shape` round differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from medv_lab.diffusion.attention_maps import PatchGrid

PAD_GREY = (127, 127, 127)
GRID_LIMIT = 6
MAX_CANVASES, MAX_TILES = 1000, 100  # the published system has 36 of at most 36
REDUCE_ABOVE = 1.1
_ANYRES = re.compile(r"anyres(?:_max_(\d+))?")

Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class TileLayout:
    """The geometry of one image, from its pixels to its positions in the sequence.

    Attributes:
        image_size: (width, height) of the original image.
        tile_size: side of a tile in pixels.
        patch_size: side of a vision patch in pixels; the convolution drops what fills no patch.
        merge_type: "flat", "spatial" or "spatial_unpad".
        canvas: (width, height) of the canvas that is cut into tiles beside the whole image; None for a single tile.
        is_padded: a single tile is padded to a square rather than squashed.
        max_tiles: the N of "anyres_max_N", towards which the map is reduced; None for no limit.
    """

    image_size: Size
    tile_size: int
    patch_size: int
    merge_type: str
    canvas: Size | None = None
    is_padded: bool = False
    max_tiles: int | None = None

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile."""
        return self.tile_size // self.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tiles on the canvas, (0, 0) for a single tile."""
        width, height = self.canvas or (0, 0)
        return height // self.tile_size, width // self.tile_size

    @property
    def num_tiles(self) -> int:
        """Tiles, the whole image included."""
        return 1 + math.prod(self.grid)

    @property
    def has_newlines(self) -> bool:
        """True where padding is cropped and a newline vector ends each row."""
        return self.merge_type == "spatial_unpad"

    @property
    def fitted_size(self) -> Size:
        """The largest (width, height) with the image's aspect that fits the canvas."""
        (width, height), canvas = self.image_size, self.canvas
        scale_x, scale_y = canvas[0] / width, canvas[1] / height
        if scale_x < scale_y:
            return canvas[0], min(math.ceil(height * scale_x), canvas[1])
        return min(math.ceil(width * scale_y), canvas[0]), canvas[1]

    @property
    def offset(self) -> Size:
        """(x, y) of the fitted image on its canvas."""
        fitted = self.fitted_size
        return (self.canvas[0] - fitted[0]) // 2, (self.canvas[1] - fitted[1]) // 2

    @property
    def margin(self) -> tuple[int, int]:
        """Padding of the patch map that is cropped, in patches: (at top and bottom, at left and right)."""
        if not self.has_newlines:
            return 0, 0
        width, height = self.image_size
        rows, columns = (count * self.patches_per_side for count in self.grid)
        if width / height > columns / rows:
            return (rows - int(height * (columns / width))) // 2, 0
        return 0, (columns - int(width * (rows / height))) // 2

    @property
    def map_size(self) -> tuple[int, int]:
        """(rows, columns) of the patch map of all tiles but the first, after cropping and reduction.

        With f = sqrt(rows columns / (max_tiles patches_per_side^2)) above 1.1, a map that ends its rows with
        newlines is reduced to (rows // f, columns // f).
        """
        rows, columns = (
            count * self.patches_per_side - 2 * cropped
            for count, cropped in zip(self.grid, self.margin, strict=True)
        )
        if not self.has_newlines or self.max_tiles is None:
            return rows, columns
        factor = math.sqrt(rows * columns / (self.max_tiles * self.patches_per_side**2))
        return (rows, columns) if factor <= REDUCE_ABOVE else (int(rows // factor), int(columns // factor))

    @property
    def num_positions(self) -> int:
        """Positions that the image takes in the sequence."""
        base = self.patches_per_side**2
        if self.canvas is None:
            return base + self.has_newlines
        rows, columns = self.map_size
        return base + rows * (columns + self.has_newlines)

    def patch_grids(self, image: int = 0, start: int = 0) -> tuple[PatchGrid, ...]:
        """Return where the patches lie on the picture, in the order of their positions.

        The grid of the whole image comes first; the patches of the other tiles follow, as one grid (or one per tile
        where tiles are not merged). Of those, the box takes patches for evenly spread over the tile, as the merging
        does.

        Args:
            image: number of the image in the prompt.
            start: its first position, counted over all positions that hold images.
        """
        unit, side = self.patches_per_side, self.tile_size
        seen = unit * self.patch_size / side  # the convolution drops what is less than a patch
        left, top, right, bottom = self._padded_square() if self.is_padded else (0.0, 0.0, 1.0, 1.0)
        box = (left, top, left + seen * (right - left), top + seen * (bottom - top))
        whole = PatchGrid(image, start, unit, unit, unit, box)
        if self.canvas is None:
            return (whole,)
        start += unit * unit
        if self.merge_type == "flat":
            corners = [(x, y) for y in range(0, self.canvas[1], side) for x in range(0, self.canvas[0], side)]
            boxes = [self._on_picture(x, y, x + side, y + side) for x, y in corners]
            tiles = (
                PatchGrid(image, start + n * unit * unit, unit, unit, unit, b) for n, b in enumerate(boxes)
            )
            return (whole, *tiles)
        cut_y, cut_x = (cropped * side / unit for cropped in self.margin)
        box = self._on_picture(cut_x, cut_y, self.canvas[0] - cut_x, self.canvas[1] - cut_y)
        rows, columns = self.map_size
        return whole, PatchGrid(image, start, rows, columns, columns + self.has_newlines, box)

    def _padded_square(self) -> Box:
        """The grey square around the image, in fractions of the picture."""
        width, height = self.image_size
        longest = max(width, height)
        left, top = (longest - width) // 2, (longest - height) // 2
        return -left / width, -top / height, (longest - left) / width, (longest - top) / height

    def _on_picture(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Pixels of the canvas, in fractions of the picture that was fitted into its middle."""
        (width, height), (x, y) = self.fitted_size, self.offset
        return (left - x) / width, (top - y) / height, (right - x) / width, (bottom - y) / height


def plan_tiles(
    image_size: Size,
    *,
    aspect_ratio: str,
    merge_type: str,
    tile_size: int,
    patch_size: int,
    pinpoints: Sequence[Sequence[int]],
) -> TileLayout:
    """Decide how an image is cut.

    Args:
        image_size: (width, height) of the image.
        aspect_ratio: "square" (squashed), "pad" (padded with grey), "anyres" or "anyres_max_N".
        merge_type: how the model merges tiles, "flat", "spatial" or "spatial_unpad".
        tile_size: side of a tile in pixels.
        patch_size: side of a vision patch in pixels.
        pinpoints: candidate canvases (width, height), multiples of `tile_size`; read for anyres only.

    Raises:
        ValueError: for another aspect ratio.
    """
    kind, max_tiles = parse_aspect_ratio(aspect_ratio)
    canvas = None
    if kind == "anyres":  # the canvas that keeps most of the pixels, then the one that wastes fewest
        candidates = [(height, width) for width, height in pinpoints]
        canvas = select_best_resolution(image_size[::-1], candidates)[::-1]
    return TileLayout(image_size, tile_size, patch_size, merge_type, canvas, kind == "pad", max_tiles)


def cut_tiles(image: Image.Image, layout: TileLayout) -> np.ndarray:
    """Cut an image as planned.

    Everything up to the last step stays uint8, because the resize is Pillow's and its rounding is part of the
    result.

    Args:
        image: the RGB image that the layout was planned for.
        layout: from `plan_tiles`.

    Returns:
        float32 (tiles, 3, side, side) in [-1, 1]. Tile 0 is the whole image on one tile, the others follow row by
        row.
    """
    side = layout.tile_size
    image = image.convert("RGB")

    # The whole image: squashed to a square, or first centred on a grey one.
    whole = image
    if layout.is_padded:
        longest = max(image.size)
        whole = Image.new("RGB", (longest, longest), PAD_GREY)
        whole.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    tiles = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC))[None]

    # The image fitted into its canvas, aspect kept, centred on black; the canvas cut row by row.
    if layout.canvas is not None:
        canvas = Image.new("RGB", layout.canvas, (0, 0, 0))
        canvas.paste(image.resize(layout.fitted_size, Image.Resampling.BICUBIC), layout.offset)
        rows, columns = layout.grid
        cut = np.asarray(canvas).reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        tiles = np.concatenate([tiles, cut.reshape(-1, side, side, 3)])

    scaled = (tiles * (1 / 255)).astype(np.float32)
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


def check_canvases(canvases: Sequence[Sequence[int]], side: int) -> None:
    """Check candidate canvases (width, height), which are cut into tiles of a side.

    Raises:
        ValueError: for none or too many, or one that is no multiple of the tile or has too many of them.
    """
    if len(canvases) > MAX_CANVASES:
        raise ValueError(
            f"image_grid_pinpoints has {len(canvases)} canvases; {MAX_CANVASES} are the most that are tried"
        )
    is_sound = len(canvases) > 0 and all(
        len(canvas) == 2 and all(isinstance(n, int) and n >= side and n % side == 0 for n in canvas)
        for canvas in canvases
    )
    if not is_sound:
        raise ValueError(
            f"image_grid_pinpoints is {str(canvases)[:200]}; give pairs [width, height], both multiples of the "
            f"tile side {side}"
        )
    most = max(math.prod(canvas) // side**2 for canvas in canvases)
    if most > MAX_TILES:
        raise ValueError(
            f"a canvas of image_grid_pinpoints has {most} tiles; {MAX_TILES} are the most that are cut"
        )


def grid_pinpoints(side: int, limit: int = GRID_LIMIT) -> list[list[int]]:
    """Return all [width, height] = [i side, j side] with i, j = 1..limit, i outer: the published 36 candidates."""
    return [[side * i, side * j] for i in range(1, limit + 1) for j in range(1, limit + 1)]
