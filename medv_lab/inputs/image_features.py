"""Image features in the place of their placeholders: tiles to one sequence, and sequences to input embeddings.

`pack_image_features` arranges the features of one image as its `TileLayout` says; `merge_features` puts them between
the embeddings of the text. B rows, S ids, T positions with the images in, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from medv_lab.inputs.tiling import TileLayout


def pack_image_features(
    features: torch.Tensor, layout: TileLayout, image_newline: torch.Tensor
) -> torch.Tensor:
    """Arrange the features of one image's tiles as one sequence.

    A single tile: its patches, and one newline at the end under "spatial_unpad". Several: the whole image (tile 0)
    first, then the other tiles as one map read row by row; under "spatial_unpad" the map loses its padding, is
    reduced bilinearly where "anyres_max_N" asks for it, and each row ends with a newline.

    Args:
        features: (tiles, patches, H), projected.
        layout: how the tiles were cut.
        image_newline: (H,), the learned newline vector.

    Returns:
        (layout.num_positions, H).

    Raises:
        ValueError: for other numbers of tiles or patches than the layout has.
    """
    tiles, patches, hidden = features.shape
    unit = layout.patches_per_side
    if (tiles, patches) != (layout.num_tiles, unit**2):
        raise ValueError(
            f"an image has {tiles} tiles of {patches} patches, its layout {layout.num_tiles} of {unit**2}: give "
            "tile_layouts=[...] as the processor returns them with pixel_values, one for each image, in the same order"
        )
    if tiles == 1:
        return torch.cat([features[0], image_newline[None]]) if layout.has_newlines else features[0]
    if layout.merge_type == "flat":
        return features.flatten(0, 1)

    # The tiles put together as they lie on the canvas.
    rows, columns = layout.grid
    grid = features[1:].view(rows, columns, unit, unit, hidden).permute(4, 0, 2, 1, 3)
    grid = grid.reshape(hidden, rows * unit, columns * unit)

    if layout.has_newlines:
        # Padding cropped, too large a map reduced, a newline behind every row.
        top, left = layout.margin
        grid = grid[:, top : rows * unit - top, left : columns * unit - left]
        if grid.shape[1:] != layout.map_size:
            grid = F.interpolate(grid[None], layout.map_size, mode="bilinear")[0]
        grid = torch.cat([grid, image_newline[:, None, None].expand(-1, grid.shape[1], 1)], dim=2)
    return torch.cat([features[0], grid.flatten(1).T])


@dataclass(frozen=True)
class MergedInputs:
    """A batch with its images in.

    Attributes:
        inputs_embeds: float (B, T, H), zero vectors where a row is padded.
        attention_mask: (B, T), 0 where padded; None if no mask was given (then padding is ordinary input).
        labels: (B, T) or None; the ignored label at images and padding.
        conversation_ids: (B, T) or None; an image has the turn of its placeholder, padding has turn 0.
    """

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    conversation_ids: torch.Tensor | None = None


def merge_features(
    input_ids: torch.Tensor,
    text_embeds: torch.Tensor,
    images: Sequence[torch.Tensor],
    image_token: int,
    *,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    conversation_ids: torch.Tensor | None = None,
    ignore_index: int = -100,
    max_length: int | None = None,
    padding_side: Literal["left", "right"] = "right",
) -> MergedInputs:
    """Put the vectors of each image in the place of its placeholder; rows are cut, then padded anew.

    Args:
        input_ids: (B, S) with `image_token` for an image.
        text_embeds: (B, S, H); what stands at placeholders is not read.
        images: (length, H) each, in the order of the placeholders (row by row).
        image_token: the placeholder.
        attention_mask: (B, S), 0 at padded ids, which are removed first; None if every id counts.
        labels, conversation_ids: (B, S) or None.
        ignore_index: label of images and padding.
        max_length: rows are cut to it on the right, after the images are in.
        padding_side: where shorter rows are filled up.

    Raises:
        ValueError: if the numbers of placeholders and images differ.
    """
    keep = torch.ones_like(input_ids) if attention_mask is None else attention_mask.bool().long()
    is_image = (input_ids == image_token) & keep.bool()
    if int(is_image.sum()) != len(images):
        raise ValueError(
            f"the ids hold {int(is_image.sum())} image placeholders ({image_token}), but {len(images)} images "
            "were given; give one image for each placeholder, row by row"
        )
    # How often each id is repeated (padding 0, text 1, a placeholder as often as its image has vectors), and with
    # it the id that every position of all rows, one behind the other, comes from.
    repeats = keep
    repeats[is_image] = keep.new_tensor([len(image) for image in images])
    source = torch.arange(keep.numel(), device=keep.device).repeat_interleave(repeats.flatten())
    from_image = is_image.flatten()[source]
    embeds = text_embeds.flatten(0, 1)[source]
    if images:
        embeds = embeds.masked_scatter(from_image[:, None], torch.cat([*images]).to(embeds))

    def to_rows(values: torch.Tensor, padding: float) -> torch.Tensor:
        rows = values.split(repeats.sum(1).tolist())
        return pad_sequence([row[:max_length] for row in rows], True, padding, padding_side)

    if attention_mask is not None:
        attention_mask = to_rows(attention_mask.new_ones(len(source)), 0)
    if labels is not None:
        labels = to_rows(labels.flatten()[source].masked_fill(from_image, ignore_index), ignore_index)
    if conversation_ids is not None:
        conversation_ids = to_rows(conversation_ids.flatten()[source], 0)
    return MergedInputs(to_rows(embeds, 0.0), attention_mask, labels, conversation_ids)


def conversation_mask(conversation_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Return which keys a query may see in a dialogue: those of its own and earlier turns, padding excepted.

    Args:
        conversation_ids: turn of each position (B, T), counted from 0.
        attention_mask: (B, T), 0 where padded, or None.

    Returns:
        bool (B, 1, queries, keys).
    """
    visible = conversation_ids[:, :, None] >= conversation_ids[:, None, :]
    if attention_mask is not None:
        visible = visible & attention_mask[:, None, :].bool()
    return visible[:, None]
