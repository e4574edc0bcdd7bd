"""Prompt ids with image placeholders, and the images' vectors, to one batch of input embeddings.

The plan (which input position each output position comes from) is made of integers only; one gather then
builds embeddings, labels and conversation ids alike. B rows, S ids, T positions with the images in, H hidden
size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

PADDING = -1


@dataclass(frozen=True)
class Spliced:
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
class SplicePlan:
    """Where each output position comes from; int64 arrays (B, T), `PADDING` where a row is padded.

    Attributes:
        source: position in the flattened ids (B * S); the placeholder's for every vector of an image.
        table: row in [text embeddings (B * S); image vectors; zero vector].
        is_text: bool (B, T), false for images and padding.
    """

    source: np.ndarray
    table: np.ndarray
    is_text: np.ndarray


def plan_splice(
    input_ids: np.ndarray,
    image_lengths: Sequence[int],
    image_token: int,
    *,
    keep: np.ndarray | None = None,
    max_length: int | None = None,
    padding_side: Literal["left", "right"] = "right",
) -> SplicePlan:
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
            f"the ids hold {int(is_image.sum())} image placeholders ({image_token}), but "
            f"{len(image_lengths)} images were "
            "given; give one image for each placeholder, row by row"
        )
    repeats = keep.astype(np.int64)
    repeats[is_image] = image_lengths
    source = np.repeat(np.arange(batch * length), repeats.ravel())
    from_image = is_image.ravel()[source]
    table = source.copy()
    table[from_image] = batch * length + np.arange(int(from_image.sum()))

    lengths = repeats.sum(axis=1)
    kept = lengths if max_length is None else np.minimum(lengths, max_length)
    total = int(kept.max(initial=0))
    layout = [np.full((batch, total), fill, dtype=np.int64) for fill in (PADDING, PADDING)]
    is_text = np.zeros((batch, total), dtype=bool)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for row, (start, size) in enumerate(zip(starts, kept, strict=False)):
        place = slice(total - size, total) if padding_side == "left" else slice(0, size)
        layout[0][row, place] = source[start : start + size]
        layout[1][row, place] = table[start : start + size]
        is_text[row, place] = ~from_image[start : start + size]
    return SplicePlan(layout[0], layout[1], is_text)


def apply_plan(
    plan: SplicePlan,
    text_embeds: torch.Tensor,
    images: Sequence[torch.Tensor],
    *,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    conversation_ids: torch.Tensor | None = None,
    ignore_index: int = -100,
) -> Spliced:
    """Gather a planned batch.

    Args:
        plan: from `plan_splice`.
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
        labels = labels.reshape(-1)[source].where(torch.from_numpy(plan.is_text).to(device), ignore_index)
    if conversation_ids is not None:
        conversation_ids = conversation_ids.reshape(-1)[source].where(present, 0)
    if attention_mask is not None:
        attention_mask = present.to(attention_mask.dtype)
    return Spliced(inputs_embeds, attention_mask, labels, conversation_ids)


def conversation_mask(conversation_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Which keys a query may see in a dialogue: those of its own and earlier turns, padding excepted.

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
