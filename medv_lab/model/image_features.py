"""Image features in the place of their placeholders: tiles to one sequence, and sequences to input embeddings.

`pack_image_features` arranges the features of one image as its `TileLayout` says. `plan_merge` decides, in integers
only, which input each output position comes from; `apply_plan` then gathers embeddings, labels and conversation ids
alike. B rows, S ids, T positions with the images in, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from medv_lab.model.tiling import TileLayout

PADDING = -1


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


@dataclass(frozen=True)
class MergePlan:
    """The origin of each output position; int64 arrays (B, T), `PADDING` where a row is padded.

    Attributes:
        source: index in the flattened ids (B * S); the placeholder's for every vector of an image.
        table: row in [text embeddings (B * S); image vectors; zero vector].
    """

    source: np.ndarray
    table: np.ndarray


def plan_merge(
    input_ids: np.ndarray,
    image_lengths: Sequence[int],
    image_token: int,
    *,
    keep: np.ndarray | None = None,
    max_length: int | None = None,
    padding_side: Literal["left", "right"] = "right",
) -> MergePlan:
    """Lay out a batch: each placeholder becomes the vectors of the next image; rows are cut, then padded.

    Args:
        input_ids: (B, S) with `image_token` for an image.
        image_lengths: number of vectors of each image, in the order of the placeholders (row by row).
        image_token: the placeholder.
        keep: bool (B, S), false for padded ids, which are removed first.
        max_length: rows are cut to it on the right, after the images are in.
        padding_side: where shorter rows are filled up.

    Raises:
        ValueError: if the numbers of placeholders and images differ.
    """
    batch, length = input_ids.shape
    keep = np.ones((batch, length), dtype=bool) if keep is None else keep
    is_image = (input_ids == image_token) & keep
    if int(is_image.sum()) != len(image_lengths):
        raise ValueError(
            f"the ids hold {int(is_image.sum())} image placeholders ({image_token}), but {len(image_lengths)} images "
            "were given; give one image for each placeholder, row by row"
        )
    # How often each id is repeated (padding 0, text 1, a placeholder as often as its image has vectors), and with
    # it the origin of every position of all rows, one behind the other.
    repeats = keep.astype(np.int64)
    repeats[is_image] = image_lengths
    source = np.repeat(np.arange(batch * length), repeats.ravel())
    from_image = is_image.ravel()[source]
    table = source.copy()
    table[from_image] = batch * length + np.arange(int(from_image.sum()))

    # Rows cut to the longest length, and padded to the longest row.
    lengths = repeats.sum(axis=1)
    kept = lengths if max_length is None else np.minimum(lengths, max_length)
    total = int(kept.max(initial=0))
    origins = np.full((2, batch, total), PADDING)
    starts = lengths.cumsum() - lengths
    for row, (start, size) in enumerate(zip(starts, kept, strict=True)):
        filled = slice(total - size, total) if padding_side == "left" else slice(0, size)
        origins[:, row, filled] = source[start : start + size], table[start : start + size]
    return MergePlan(*origins)


def apply_plan(
    plan: MergePlan,
    text_embeds: torch.Tensor,
    images: Sequence[torch.Tensor],
    *,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    conversation_ids: torch.Tensor | None = None,
    ignore_index: int = -100,
) -> MergedInputs:
    """Gather a planned batch.

    Args:
        plan: from `plan_merge`.
        text_embeds: (B, S, H); what stands at placeholders is not read.
        images: (length, H) each, in the order of the placeholders.
        attention_mask: (B, S) or None; decides only whether there is a mask in the result, and its type.
        labels: (B, S) or None.
        conversation_ids: (B, S) or None.
        ignore_index: label of images and padding.
    """
    device, hidden = text_embeds.device, text_embeds.shape[-1]
    pieces = [text_embeds.reshape(-1, hidden), *(image.to(text_embeds.dtype) for image in images)]
    is_padded = plan.source == PADDING
    if is_padded.any():
        pieces.append(text_embeds.new_zeros(1, hidden))
    rows = torch.cat(pieces)
    index = torch.from_numpy(np.where(is_padded, len(rows) - 1, plan.table)).to(device)
    inputs_embeds = rows.index_select(0, index.view(-1)).view(*index.shape, hidden)

    source = torch.from_numpy(np.where(is_padded, 0, plan.source)).to(device)
    present = torch.from_numpy(~is_padded).to(device)
    if labels is not None:
        is_text = present & (index < labels.numel())
        labels = labels.reshape(-1)[source].where(is_text, ignore_index)
    if conversation_ids is not None:
        conversation_ids = conversation_ids.reshape(-1)[source].where(present, 0)
    if attention_mask is not None:
        attention_mask = present.to(attention_mask.dtype)
    return MergedInputs(inputs_embeds, attention_mask, labels, conversation_ids)


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
