import numpy as np
import pytest
import torch

from medv_lab.model.anyres import merge_tiles, reduce_map, unpad_map
from medv_lab.model.splice import PADDING, conversation_mask, plan_splice

IMAGE = -200


def test_plan_puts_images_in_and_pads_on_the_asked_side():
    ids = np.array([[7, IMAGE, 8], [9, 10, 11]])
    right = plan_splice(ids, [3], IMAGE)
    assert right.source.tolist() == [[0, 1, 1, 1, 2], [3, 4, 5, PADDING, PADDING]]
    assert right.table.tolist() == [[0, 6, 7, 8, 2], [3, 4, 5, PADDING, PADDING]]
    left = plan_splice(ids, [3], IMAGE, padding_side="left")
    assert left.source[1].tolist() == [PADDING, PADDING, 3, 4, 5]


def test_plan_removes_padded_ids_and_cuts_at_the_maximal_length():
    ids = np.array([[7, IMAGE, 8, IMAGE], [9, 10, 0, 0]])
    keep = np.array([[True, True, True, False], [True, True, False, False]])
    plan = plan_splice(ids, [4], IMAGE, keep=keep, max_length=3)
    assert plan.source.tolist() == [[0, 1, 1], [4, 5, PADDING]]
    assert plan.is_text.tolist() == [[True, False, False], [True, True, False]]


def test_dialogue_mask_shows_own_and_earlier_turns():
    visible = conversation_mask(torch.tensor([[0, 0, 1, 0]]), torch.tensor([[1, 1, 1, 0]]))
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert visible[0, 0].int().tolist() == expected


@pytest.mark.parametrize(("size", "shape"), [((200, 50), (2, 8)), ((50, 200), (8, 2)), ((64, 64), (8, 8))])
def test_unpad_keeps_the_part_that_the_image_filled(size, shape):
    assert unpad_map(torch.zeros(1, 8, 8), size).shape[1:] == shape


def test_map_is_reduced_only_well_above_the_limit():
    assert reduce_map(torch.zeros(1, 12, 12), unit=4, max_tiles=None).shape[1:] == (12, 12)
    assert reduce_map(torch.zeros(1, 8, 8), unit=4, max_tiles=4).shape[1:] == (8, 8)
    assert reduce_map(torch.zeros(1, 12, 12), unit=4, max_tiles=4).shape[1:] == (8, 8)


def merged(tiles, merge_type, image_size=(8, 4)):
    features = torch.arange(tiles * 4, dtype=torch.float).view(tiles, 4, 1)
    return merge_tiles(
        features,
        torch.tensor([-1.0]),
        merge_type=merge_type,
        aspect_ratio="anyres",
        side=4,
        image_size=image_size,
        pinpoints=[(4, 4), (8, 4)],
    )[:, 0].tolist()


def test_tiles_are_read_row_by_row_across_the_canvas():
    assert merged(3, "flat") == list(range(12))
    assert merged(3, "spatial") == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]
    assert merged(3, "spatial_unpad") == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]


def test_a_single_tile_ends_with_one_newline():
    assert merged(1, "spatial_unpad") == [0, 1, 2, 3, -1]
    assert merged(1, "flat") == [0, 1, 2, 3]
