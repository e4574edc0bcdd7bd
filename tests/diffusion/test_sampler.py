"""Properties of the sampler on a small denoiser; its numbers are held by the parity tests."""

import math
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from medv_lab.config import Threshold
from tests.diffusion.toy import MASK, SETTINGS, STOP, Toy, final, prompts, run, trace_of


@pytest.mark.parametrize(
    "variation",
    [
        {},
        {"remasking": "random", "seed": 5},
        {"remasking": "random", "temperature": 0.8, "seed": 1},
        {"temperature": 0.8, "seed": 2},
        {"temperature": 0.8, "noise": "reference"},
        {"cfg_scale": 1.0},
        {"steps": 4},
        {"steps": 48},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [(), (4, 9)], ids=["", "suffix"])
def test_a_batch_of_eight_gives_what_single_runs_give(variation, suffix):
    toy, (ids, mask), settings = Toy(), prompts(8), replace(SETTINGS, **variation)
    together = run(toy, ids, mask, settings, stops=[[STOP]], suffix_ids=suffix)
    for row in range(8):
        own = ids[row : row + 1, mask[row].bool()]
        alone = run(toy, own, None, settings, stops=[[STOP]], suffix_ids=suffix)
        assert final(together[-1], row) == final(alone[-1])
        ours, theirs = trace_of(together, row), trace_of(alone)
        for name in ("step", "block", "position", "token_id", "stops"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), name
        np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=1e-6)
    assert len({tuple(final(together[-1], row)) for row in range(8)}) > 3
    assert len(set(together[-1].stops.tolist())) > 1


@pytest.mark.parametrize(
    "changes",
    [{}, {"steps": 4}, {"remasking": "threshold"}, {"remasking": "entropy_bound"}, {"guard": "spread"}],
    ids=str,
)
def test_deferred_ends_are_predicted_and_committed_last(changes):
    ids, mask = prompts()
    ends = (STOP, 4, 9)  # tokens that the toy is fond of
    settings = replace(SETTINGS, **changes, defer_ends=True)
    records = run(Toy(), ids, mask, settings, end_ids=ends)
    is_end = [np.isin(record.candidate_tokens, ends) for record in records]
    assert any(found.any() for found in is_end)
    for record, found in zip(records, is_end, strict=True):
        count = np.bincount(record.rows, minlength=len(ids))
        assert (count == record.num_transfer).all() or settings.remasking.is_adaptive
        assert (count >= record.num_transfer).all()
        waiting = np.bincount(record.candidate_rows[~found], minlength=len(ids))
        committed = np.bincount(record.rows[~np.isin(record.tokens, ends)], minlength=len(ids))
        for row in np.unique(record.rows[np.isin(record.tokens, ends)]):
            assert committed[row] == waiting[row]
    with pytest.raises(ValueError, match="end_ids"):
        run(Toy(), ids, mask, settings)


def test_rows_that_are_done_do_not_change_and_are_not_computed():
    toy, (ids, mask) = Toy(), prompts()
    records = run(toy, ids, mask, stops=[[STOP]])
    assert not records[-1].active.all()
    for before, after in pairwise(records):
        assert (before.canvas[~after.active] == after.canvas[~after.active]).all()
    assert [len(seen) for seen in toy.seen] == [record.active.sum() for record in records]


def test_stops_cut_the_answers_and_nothing_behind_them_is_filled_any_more():
    ids, mask = prompts()
    records = run(Toy(), ids, mask, stops=[[STOP]])
    assert all(STOP not in final(records[-1], row) for row in range(len(ids)))
    for before, after in pairwise(records):
        assert (after.positions < before.stops[after.rows]).all()


def test_temperature_zero_is_deterministic_and_seeds_matter_above_it():
    toy, (ids, mask) = Toy(), prompts()
    assert final(run(toy, ids, mask)[-1]) == final(run(toy, ids, mask, replace(SETTINGS, seed=9))[-1])

    def hot(seed):
        return tuple(final(run(toy, ids, mask, replace(SETTINGS, temperature=1.5, seed=seed))[-1]))

    assert hot(1) == hot(1)
    assert len({hot(seed) for seed in range(4)}) > 1


def test_random_remasking_commits_in_another_order():
    toy, (ids, _) = Toy(), prompts(1)
    orders = [
        [int(record.positions[0]) for record in run(toy, ids, settings=replace(SETTINGS, **variation))]
        for variation in ({}, {"remasking": "random"}, {"remasking": "random", "seed": 1})
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(SETTINGS.gen_length)) for order in orders)


def test_each_pass_commits_its_share_of_the_most_confident():
    ids, mask = prompts()
    for record in run(Toy(), ids, mask, replace(SETTINGS, steps=8)):
        for row in range(len(ids)):
            mine = record.candidate_rows == row
            best = np.sort(record.candidate_confidence[mine])[::-1][: record.num_transfer[row]]
            assert np.sort(record.confidence[record.rows == row])[::-1].tolist() == best.tolist()


def test_shares_sum_to_the_answer():
    ids, mask = prompts()
    records = run(Toy(), ids, mask, replace(SETTINGS, steps=8))
    assert sum(record.num_transfer for record in records).tolist() == [SETTINGS.gen_length] * len(ids)
    assert not (records[-1].canvas == MASK).any()


def test_more_steps_than_positions_end_early():
    ids, _ = prompts(1)
    assert len(run(Toy(), ids, settings=replace(SETTINGS, steps=60))) == SETTINGS.gen_length


def test_blocks_are_filled_from_left_to_right():
    ids, _ = prompts(1)
    records = run(Toy(), ids)
    for record in records:
        assert (record.positions // SETTINGS.block_length == record.block).all()
    passes = [(block, step) for block in range(2) for step in range(6)]
    assert [(record.block, record.step) for record in records] == passes


def test_suppressed_tokens_are_never_predicted():
    ids, mask = prompts()
    free = run(Toy(), ids, mask)
    common = int(np.bincount(free[-1].canvas.ravel()).argmax())
    held = run(Toy(), ids, mask, suppressed=(common,))
    assert common in free[-1].canvas
    assert common not in held[-1].canvas


def test_logits_are_processed_with_the_answers_of_their_rows():
    ids, mask = prompts()
    seen = []

    def forbid(answers, logits):
        seen.append(answers.tolist())
        return logits.index_fill(-1, torch.tensor([4, 9]), -torch.inf)

    records = run(Toy(), ids, mask, process_logits=forbid, suppressed=(5,))
    held = run(Toy(), ids, mask, suppressed=(4, 5, 9))
    assert [record.canvas.tolist() for record in records] == [record.canvas.tolist() for record in held]
    before = np.full_like(records[0].canvas, MASK)
    for record, answers in zip(records, seen, strict=True):
        assert answers == before[record.candidate_rows].tolist()
        before = record.canvas


def test_a_predicted_mask_stays_masked_competes_in_later_blocks_and_can_be_in_the_answer():
    ids, _ = prompts(1)
    records = run(Toy(mask_bias=60.0), ids)
    assert (records[-1].canvas == MASK).all()
    assert len(records) == SETTINGS.steps
    assert len(records[-1].candidate_positions) == SETTINGS.gen_length


def test_a_mask_in_the_prompt_is_filled_and_uses_up_its_share():
    toy, (ids, mask) = Toy(), prompts(1)
    ids[0, -2] = MASK
    records = run(toy, ids, mask, prompt_masked=ids == MASK)
    assert any((record.positions == -2).any() for record in records)
    assert (records[-1].canvas == MASK).sum() == 1


@pytest.mark.parametrize("passes", [2, 5])
def test_an_adaptive_pass_shares_out_the_masks_that_are_left_those_of_the_prompt_in_the_last_only(passes):
    ids, _ = prompts(1)
    ids[0, -1] = MASK
    settings = replace(SETTINGS, remasking=Threshold(1.0), max_passes=2 * passes)
    records = run(Toy(), ids, settings=settings, prompt_masked=ids == MASK)
    assert len(records) == 2 * passes
    for record in records:
        left = passes - record.step
        masks = (record.candidate_positions >= 0).sum() if left > 1 else len(record.candidate_positions)
        assert record.num_transfer.tolist() == [math.ceil(masks / left)]
        assert record.num_transfer.dtype == np.int64


def test_the_head_sees_only_masked_positions_of_reached_blocks():
    toy, (ids, _) = Toy(), prompts(1)
    run(toy, ids)
    assert toy.head_rows == [6, 5, 4, 3, 2, 1] * 2


def test_prompt_and_suffix_are_the_same_in_every_pass():
    toy, (ids, mask) = Toy(), prompts()
    prefix = toy.embed_tokens(ids)
    run(toy, ids, mask, suffix_ids=(4, 9))
    assert len(toy.seen) == SETTINGS.steps
    for seen in toy.seen:
        assert torch.equal(seen[:, : ids.shape[1]], prefix)
        assert torch.equal(seen[:, -2:], toy.embed_tokens(torch.tensor([4, 9])).expand(len(ids), -1, -1))


def test_a_suffix_is_seen_while_the_answer_is_filled():
    toy, (ids, _) = Toy(), prompts(1)
    assert final(run(toy, ids, suffix_ids=(4, 9))[-1]) != final(run(toy, ids)[-1])


def test_guidance_blanks_the_prompt_and_keeps_the_suffix():
    toy, (ids, _) = Toy(), prompts(1)
    run(toy, ids, settings=replace(SETTINGS, cfg_scale=1.0), suffix_ids=(4, 9))
    size = ids.shape[1]
    for conditional, unconditional in toy.seen:
        assert torch.equal(unconditional[:size], toy.embed_tokens(torch.full((size,), MASK)))
        assert torch.equal(unconditional[size:], conditional[size:])


@pytest.mark.parametrize("passes", [0, 1, 5])
def test_cancelling_leaves_a_valid_part(passes):
    toy, (ids, _) = Toy(), prompts(1)
    records = run(toy, ids, cancel=lambda: len(toy.seen) >= passes)
    assert len(records) == passes
    trace = trace_of(records)
    assert trace.forward_evaluations == passes
    assert (trace.replay() == MASK).sum() == SETTINGS.gen_length - passes


def test_an_event_can_cancel():
    event, (ids, _) = threading.Event(), prompts(1)
    event.set()
    assert run(Toy(), ids, cancel=event.is_set) == []


def test_numbers_that_are_not_finite_are_an_error():
    toy, (ids, _) = Toy(), prompts(1)
    with torch.no_grad():
        toy.out.bias[3] = torch.nan
    with pytest.raises(FloatingPointError, match="step 0 of block 0"):
        run(toy, ids)
