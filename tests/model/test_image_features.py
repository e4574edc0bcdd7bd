"""Packing of tiles and merging with text (the recorded embeddings are checked by the parity suite)."""

import numpy as np
import pytest
import torch

from medv_lab.model.image_features import PADDING, conversation_mask, pack_image_features, plan_merge
from medv_lab.model.tiling import TileLayout

IMAGE = -200


def test_plan_puts_images_in_and_pads_on_the_asked_side():
    ids = np.array([[7, IMAGE, 8], [9, 10, 11]])
    right = plan_merge(ids, [3], IMAGE)
    assert right.source.tolist() == [[0, 1, 1, 1, 2], [3, 4, 5, PADDING, PADDING]]
    assert right.table.tolist() == [[0, 6, 7, 8, 2], [3, 4, 5, PADDING, PADDING]]
    left = plan_merge(ids, [3], IMAGE, padding_side="left")
    assert left.source[1].tolist() == [PADDING, PADDING, 3, 4, 5]


def test_plan_removes_padded_ids_and_cuts_at_the_maximal_length():
    ids = np.array([[7, IMAGE, 8, IMAGE], [9, 10, 0, 0]])
    keep = np.array([[True, True, True, False], [True, True, False, False]])
    plan = plan_merge(ids, [4], IMAGE, keep=keep, max_length=3)
    assert plan.source.tolist() == [[0, 1, 1], [4, 5, PADDING]]
    assert plan.table.tolist() == [[0, 8, 9], [4, 5, PADDING]]


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


def test_tiles_of_another_layout_are_refused():
    layout = TileLayout((8, 4), 4, 2, "flat", (8, 4))
    with pytest.raises(ValueError, match="2 tiles of 4 patches, its layout 3 of 4: give tile_layouts"):
        pack_image_features(torch.zeros(2, 4, 1), layout, torch.zeros(1))
