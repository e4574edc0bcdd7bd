"""Packing of tiles and merging with text (the recorded embeddings are checked by the parity suite)."""

import pytest
import torch

from medv_lab.inputs.image_features import conversation_mask, merge_features, pack_image_features
from medv_lab.inputs.tiling import TileLayout

IMAGE = -200


def merged(ids, lengths, **options):
    """Ids 0..59 embedded as themselves, image vectors counted from 100."""
    ids = torch.tensor(ids)
    vectors = torch.arange(100.0, 100 + sum(lengths))[:, None].split(lengths) if lengths else []
    given = {"labels": ids, "conversation_ids": ids % 2, **options}
    return merge_features(ids, ids[..., None].float(), vectors, IMAGE, **given)


@pytest.mark.parametrize("side", ["left", "right"])
def test_images_are_put_in_and_rows_padded_on_the_asked_side(side):
    batch = merged([[7, IMAGE, 8], [9, 10, 11]], [3], padding_side=side)
    padded = {"left": lambda row, pad: [pad, pad, *row], "right": lambda row, pad: [*row, pad, pad]}[side]
    assert batch.inputs_embeds[..., 0].tolist() == [[7, 100, 101, 102, 8], padded([9, 10, 11], 0)]
    assert batch.labels.tolist() == [[7, -100, -100, -100, 8], padded([9, 10, 11], -100)]
    assert batch.conversation_ids.tolist() == [[1, 0, 0, 0, 0], padded([1, 0, 1], 0)]
    assert batch.attention_mask is None


def test_padded_ids_are_removed_and_rows_cut_at_the_maximal_length():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    batch = merged([[7, IMAGE, 8, IMAGE], [9, 10, 0, 0]], [4], attention_mask=mask, max_length=3)
    assert batch.inputs_embeds[..., 0].tolist() == [[7, 100, 101], [9, 10, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_dialogue_mask_shows_own_and_earlier_turns():
    visible = conversation_mask(torch.tensor([[0, 0, 1, 0]]), torch.tensor([[1, 1, 1, 0]]))
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert visible[0, 0].int().tolist() == expected


def packed(merge_type, canvas):
    layout = TileLayout((8, 4), 4, 2, merge_type, canvas)
    features = torch.arange(layout.num_tiles * 4, dtype=torch.float).view(-1, 4, 1)
    return pack_image_features(features, layout, torch.tensor([-1.0]))[:, 0].tolist()


def test_tiles_are_read_row_by_row_across_the_canvas():
    assert packed("flat", (8, 4)) == list(range(12))
    assert packed("spatial", (8, 4)) == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]
    assert packed("spatial_unpad", (8, 4)) == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]


def test_a_single_tile_ends_with_one_newline():
    assert packed("spatial_unpad", None) == [0, 1, 2, 3, -1]
    assert packed("flat", None) == [0, 1, 2, 3]
