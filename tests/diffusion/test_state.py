"""The state of a run: masks, commits and stops, row by row."""

import numpy as np
import pytest

from medv_lab.diffusion.state import SamplerState, find_first_stops

MASK = 99


def commit(state, position, token):
    """Commit one token in row 0."""
    state.commit(np.array([0]), np.array([position]), np.array([token]), np.array([0.5]))


def state_of(ids, stop_ids, prompt=2):
    """A state in which these ids stand."""
    ids = np.array(ids)
    state = SamplerState(np.zeros((len(ids), prompt), bool), ids.shape[1], (5,), MASK, stop_ids)
    rows, positions = np.nonzero(ids != MASK)
    state.commit(rows, positions, ids[rows, positions], np.ones(len(rows)))
    state.find_stops(np.ones(len(ids), bool))
    return state


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_first_position_of_a_stop_is_found_as_by_looking_everywhere(size):
    random = np.random.default_rng(size)
    ids = random.integers(0, 3, (60, 6))
    stop = random.integers(0, 3, size).tolist()
    expected = [next((at for at in range(6) if row[at : at + size] == stop), 6) for row in ids.tolist()]
    assert state_of(ids, [stop]).stops.tolist() == expected
    assert (len(set(expected)) > 1) == (size < 7)


def test_an_empty_stop_ends_every_answer_at_its_start():
    state = state_of([[1, MASK, 2]], [[]])
    assert state.stops.tolist() == [0]
    assert state.is_done.tolist() == [True]


def test_of_several_stops_the_first_of_the_list_that_is_there_counts():
    assert state_of([[5, 6, 7, 8]], [[8], [6]]).stops.tolist() == [3]
    assert state_of([[5, 6, 7, 8]], [[4], [7], [6]]).stops.tolist() == [2]


def test_a_known_stop_is_moved_only_by_the_first_sequence_and_only_forward():
    ids = [[MASK, MASK, MASK, 8, MASK]]
    everything = np.array([True])
    state = state_of(ids, [[7], [8]])
    commit(state, 1, 8)
    state.find_stops(everything)
    assert state.stops.tolist() == [3]  # the second sequence is not looked for again
    commit(state, 4, 7)
    state.find_stops(everything)
    assert state.stops.tolist() == [3]
    commit(state, 2, 7)
    state.find_stops(everything)
    assert state.stops.tolist() == [2]


def test_a_row_is_done_when_nothing_before_its_stop_is_masked():
    state = state_of([[1, MASK, 8, MASK], [1, 2, 8, MASK], [1, 2, 3, MASK]], [[8]])
    assert state.is_done.tolist() == [False, True, False]
    assert state.waiting_in(0, 4).tolist() == [True, False, True]
    assert state.waiting_in(0, 1).tolist() == [False, False, False]


def test_candidates_are_masked_before_the_stop_and_the_end_of_the_block():
    state = state_of([[1, MASK, MASK, MASK], [MASK, 8, MASK, MASK]], [[8]])
    rows, positions = state.candidates(np.array([True, True]), 3)
    assert list(zip(rows.tolist(), positions.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0)]
    assert len(state.candidates(np.array([False, False]), 3)[0]) == 0


def test_masks_in_the_prompt_are_candidates_that_are_no_part_of_the_answer():
    prompt = np.array([[False, True]])
    state = SamplerState(prompt, 2, (5,), MASK, [])
    _, positions = state.candidates(np.array([True]), 2)
    assert positions.tolist() == [-1, 0, 1]
    commit(state, -1, 5)
    assert state.answer.tolist() == [[MASK, MASK]]
    assert np.isnan(state.confidence).all()
    assert not state.masked[0, 1]


def test_a_committed_mask_id_leaves_its_position_masked():
    state = state_of([[1, MASK]], [])
    commit(state, 1, MASK)
    assert state.masked[0].tolist() == [False, False, False, True, False]


def test_what_is_remasked_is_masked_again_and_nothing_behind_the_stop_may_be():
    state = state_of([[1, 2, 8, 3], [1, MASK, 2, 3]], [[8]])
    rows, positions = state.committed(np.array([True, True]), 1, 4)
    assert list(zip(rows.tolist(), positions.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (1, 3)]
    state.remask(np.array([1]), np.array([3]))
    assert state.answer[1].tolist() == [1, MASK, 2, MASK]
    assert state.remasked.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert state.masked[1].tolist() == [False, False, False, True, False, True, False]


def test_a_stop_that_loses_a_token_is_forgotten_and_looked_for_again():
    state, everything = state_of([[MASK, 7, 8, 7, 8]], [[9], [7, 8]]), np.array([True])
    assert state.stops.tolist() == [1]
    state.remask(np.array([0]), np.array([4]))
    state.find_stops(everything)
    assert state.stops.tolist() == [1]
    state.remask(np.array([0]), np.array([2]))
    assert state.stops.tolist() == [5]
    commit(state, 4, 8)
    state.find_stops(everything)
    assert state.stops.tolist() == [3]


def test_a_given_stop_may_still_move_forward_as_any_other():
    state = SamplerState(np.zeros((1, 2), bool), 5, (5,), MASK, [[8]])
    state.start(np.array([[MASK, MASK, MASK, 8, MASK]]))
    assert state.stops.tolist() == [3]
    commit(state, 1, 8)
    state.find_stops(np.array([True]))
    assert state.stops.tolist() == [1]


def test_answers_to_start_from_end_where_a_given_stop_stands():
    answers = np.array([[MASK, 8, MASK], [MASK, 4, MASK], [8, 8, 4]])
    assert find_first_stops(answers, MASK, [[8]]).tolist() == [1, 3, 0]


@pytest.mark.parametrize(("grown_at", "given_at"), [(1, 4), (2, 4), (3, 2)])
def test_what_was_given_moves_with_an_answer_that_grows_and_is_still_in_it(grown_at, given_at):
    for stop_at in {*range(6)} - {given_at}:
        state = SamplerState(np.zeros((1, 2), bool), 4, (5,), MASK, [[8]])
        state.start(np.array([[MASK, MASK, 4, MASK]]))
        state.grow(grown_at, 2)
        assert np.flatnonzero(state.given).tolist() == [given_at]
        commit(state, stop_at, 8)
        state.find_stops(np.array([True]))
        assert state.stops.tolist() == [stop_at if stop_at > given_at else 6]
