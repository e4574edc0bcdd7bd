"""Masks, commits and stops, row by row."""

import numpy as np
import pytest

from medv_lab.diffusion.canvas import Canvas

MASK = 99


def canvas_of(ids, stop_ids, prompt=2):
    """A canvas on which these ids stand."""
    ids = np.array(ids)
    canvas = Canvas(np.zeros((len(ids), prompt), bool), ids.shape[1], 1, MASK, stop_ids)
    rows, places = np.nonzero(ids != MASK)
    canvas.commit(rows, places + prompt, ids[rows, places])
    canvas.find_stops(np.ones(len(ids), bool))
    return canvas


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_first_place_of_a_stop_is_found_as_by_looking_at_every_place(size):
    random = np.random.default_rng(size)
    ids = random.integers(0, 3, (60, 6))
    stop = random.integers(0, 3, size).tolist()
    expected = [next((at for at in range(6) if row[at : at + size] == stop), 6) for row in ids.tolist()]
    assert canvas_of(ids, [stop]).stops.tolist() == expected
    assert (len(set(expected)) > 1) == (size < 7)


def test_an_empty_stop_ends_every_answer_at_its_start():
    canvas = canvas_of([[1, MASK, 2]], [[]])
    assert canvas.stops.tolist() == [0]
    assert canvas.is_done.tolist() == [True]


def test_of_several_stops_the_first_of_the_list_that_is_there_counts():
    assert canvas_of([[5, 6, 7, 8]], [[8], [6]]).stops.tolist() == [3]
    assert canvas_of([[5, 6, 7, 8]], [[4], [7], [6]]).stops.tolist() == [2]


def test_a_known_stop_is_moved_only_by_the_first_sequence_and_only_forward():
    ids = [[MASK, MASK, MASK, 8, MASK]]
    everything = np.array([True])
    canvas = canvas_of(ids, [[7], [8]])
    canvas.commit(np.array([0]), np.array([2 + 1]), np.array([8]))
    canvas.find_stops(everything)
    assert canvas.stops.tolist() == [3]  # the second sequence is not looked for again
    canvas.commit(np.array([0]), np.array([2 + 4]), np.array([7]))
    canvas.find_stops(everything)
    assert canvas.stops.tolist() == [3]
    canvas.commit(np.array([0]), np.array([2 + 2]), np.array([7]))
    canvas.find_stops(everything)
    assert canvas.stops.tolist() == [2]


def test_a_row_is_done_when_nothing_before_its_stop_is_masked():
    canvas = canvas_of([[1, MASK, 8, MASK], [1, 2, 8, MASK], [1, 2, 3, MASK]], [[8]])
    assert canvas.is_done.tolist() == [False, True, False]
    assert canvas.waiting_in(0, 4).tolist() == [True, False, True]
    assert canvas.waiting_in(0, 1).tolist() == [False, False, False]


def test_candidates_are_masked_before_the_stop_and_the_end_of_the_block():
    canvas = canvas_of([[1, MASK, MASK, MASK], [MASK, 8, MASK, MASK]], [[8]])
    rows, places = canvas.candidates(np.array([True, True]), 3)
    assert list(zip(rows.tolist(), (places - 2).tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0)]
    assert len(canvas.candidates(np.array([False, False]), 3)[0]) == 0


def test_masks_in_the_prompt_are_candidates_that_are_no_part_of_the_answer():
    prompt = np.array([[False, True]])
    canvas = Canvas(prompt, 2, 1, MASK, [])
    _, places = canvas.candidates(np.array([True]), 2)
    assert (places - 2).tolist() == [-1, 0, 1]
    canvas.commit(np.array([0]), np.array([1]), np.array([5]))
    assert canvas.ids.tolist() == [[MASK, MASK]]
    assert not canvas.masked[0, 1]


def test_a_committed_mask_id_leaves_its_place_masked():
    canvas = canvas_of([[1, MASK]], [])
    canvas.commit(np.array([0]), np.array([3]), np.array([MASK]))
    assert canvas.masked[0].tolist() == [False, False, False, True, False]


def test_what_is_revoked_is_masked_again_and_nothing_behind_the_stop_may_be():
    canvas = canvas_of([[1, 2, 8, 3], [1, MASK, 2, 3]], [[8]])
    rows, places = canvas.committed(np.array([True, True]), 1, 4)
    assert list(zip(rows.tolist(), (places - 2).tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (1, 3)]
    canvas.revoke(np.array([1]), np.array([2 + 3]))
    assert canvas.ids[1].tolist() == [1, MASK, 2, MASK]
    assert canvas.masked[1].tolist() == [False, False, False, True, False, True, False]


def test_a_stop_that_loses_a_token_is_forgotten_and_looked_for_again():
    canvas, everything = canvas_of([[MASK, 7, 8, 7, 8]], [[9], [7, 8]]), np.array([True])
    assert canvas.stops.tolist() == [1]
    canvas.revoke(np.array([0]), np.array([2 + 4]))
    canvas.find_stops(everything)
    assert canvas.stops.tolist() == [1]
    canvas.revoke(np.array([0]), np.array([2 + 2]))
    assert canvas.stops.tolist() == [5]
    canvas.commit(np.array([0]), np.array([2 + 4]), np.array([8]))
    canvas.find_stops(everything)
    assert canvas.stops.tolist() == [3]
