"""Pictures to tiles as transformers asks for them: the image processor of a model, also without its tokenizer.

Saved as `preprocessor_config.json`; a published `llava_llada` folder, which has none of ours, is read through its
`config.json` by the processor. No torch but for pictures and results that are tensors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

from medv_lab.data.images import notes_of, open_image
from medv_lab.inputs.tiling import (
    TileLayout,
    check_canvases,
    cut_tiles,
    grid_pinpoints,
    parse_aspect_ratio,
    plan_tiles,
)
from medv_lab.strategies.base import check_number

IMAGE_SETTINGS = (
    "image_size",
    "patch_size",
    "image_aspect_ratio",
    "mm_patch_merge_type",
    "image_grid_pinpoints",
)
MAX_SIDE = 10_000  # pixels of a tile
TENSORS = (None, "pt", "np")


class MedVImageProcessor(BaseImageProcessor):
    """The image settings of a model: pictures to the pixels of their tiles.

    Args:
        image_size: side of a tile in pixels.
        patch_size: side of a vision patch in pixels.
        image_aspect_ratio: "square", "pad", "anyres" or "anyres_max_N".
        mm_patch_merge_type: how the model merges tiles; decides how many positions an image takes.
        image_grid_pinpoints: candidate canvases [[width, height], ...]; None for 1..6 x 1..6 tiles.

    Raises:
        ValueError: for another aspect ratio, or sizes and canvases that no model has.
    """

    model_input_names = ("pixel_values", "tile_layouts")

    def __init__(
        self,
        image_size: int = 384,
        patch_size: int = 14,
        image_aspect_ratio: str = "anyres_max_4",
        mm_patch_merge_type: str = "spatial_unpad",
        image_grid_pinpoints: list[list[int]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        parse_aspect_ratio(image_aspect_ratio)
        for name, size in (("image_size", image_size), ("patch_size", patch_size)):
            check_number(name, size, int, 1, MAX_SIDE)
        if image_grid_pinpoints:
            check_canvases(image_grid_pinpoints, image_size)
        self.image_size, self.patch_size = image_size, patch_size
        self.image_aspect_ratio, self.mm_patch_merge_type = image_aspect_ratio, mm_patch_merge_type
        self.image_grid_pinpoints = image_grid_pinpoints or grid_pinpoints(image_size)

    def preprocess(
        self, images: Any, return_tensors: str | None = None, image_aspect_ratio: str | None = None
    ) -> BatchFeature:
        """Cut pictures, each as it would be cut alone.

        Args:
            images: a picture (anything `open_image` takes, or a tensor), or a list of such.
            return_tensors: "pt" or "np"; pictures of equally many tiles are then one array (N, tiles, 3, side, side).
            image_aspect_ratio: instead of the processor's.

        Returns:
            pixel_values, (tiles, 3, side, side) float32 per picture, and tile_layouts, a `TileLayout` per picture.

        Raises:
            ImageError: for a picture that cannot be opened.
        """
        pictures = images if isinstance(images, list | tuple) else [images]
        cut = [self.cut([one], image_aspect_ratio) for one in pictures]
        pixels = [tiles for own, _ in cut for tiles in own]
        return BatchFeature(
            {
                "pixel_values": stack_tiles(pixels, return_tensors),
                "tile_layouts": [layout for _, layouts in cut for layout in layouts],
            }
        )

    def cut(
        self, images: Sequence[Any], aspect_ratio: str | None = None
    ) -> tuple[list[torch.Tensor], list[TileLayout]]:
        """Open and cut the images of one prompt; several are single padded tiles, as published.

        Raises:
            ImageError: for a picture that cannot be opened.
        """
        opened = open_pictures(list(images))
        layouts = self.plan([image.size for image in opened], aspect_ratio)
        return [torch.from_numpy(cut_tiles(*pair)) for pair in zip(opened, layouts, strict=True)], layouts

    def plan(self, sizes: Sequence[tuple[int, int]], aspect_ratio: str | None = None) -> list[TileLayout]:
        """Return the layouts of one prompt's images of these (width, height)."""
        mode = "pad" if len(sizes) > 1 else aspect_ratio or self.image_aspect_ratio
        return [
            plan_tiles(
                size,
                aspect_ratio=mode,
                merge_type=self.mm_patch_merge_type,
                tile_size=self.image_size,
                patch_size=self.patch_size,
                pinpoints=self.image_grid_pinpoints,
            )
            for size in sizes
        ]


def stack_tiles(pixels: list[torch.Tensor], kind: str | None) -> Any:
    """Return pixels (tiles, 3, side, side) of pictures as one array where they have equally many tiles.

    Raises:
        ValueError: for another kind of tensor.
    """
    if kind not in TENSORS:
        raise ValueError(f"return_tensors is {kind!r}; give 'pt', 'np' or None")
    if kind is not None and len({tuple(one.shape) for one in pixels}) == 1:
        pixels = torch.stack(pixels)
        return pixels.numpy() if kind == "np" else pixels
    return [one.numpy() for one in pixels] if kind == "np" else pixels


def open_pictures(entry: Any) -> list[Image.Image]:
    """Open what one question is about: a picture, a list of pictures, or None.

    Raises:
        ImageError: for a picture that cannot be opened.
    """
    pictures = entry if isinstance(entry, list | tuple) else [] if entry is None else [entry]
    return [open_image(_as_array(one)) for one in pictures]


def list_notes(pictures: Sequence[Image.Image]) -> tuple[str, ...]:
    """Return what was noted of the opened pictures of one question; of several, with their numbers."""
    return tuple(
        note if len(pictures) == 1 else f"Picture {number}: {note}"
        for number, picture in enumerate(pictures, 1)
        for note in notes_of(picture)
    )


def _as_array(image: Any) -> Any:
    """Give a tensor, channels first as in torchvision, as an array with them last; others as they are."""
    if not isinstance(image, torch.Tensor):
        return image
    array = image.detach().cpu()
    array = array.float().numpy() if array.is_floating_point() else array.numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 and array.shape[0] in (1, 3, 4) else array
