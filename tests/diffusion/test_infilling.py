"""Infilling: given tokens stay in every strategy, guard, cache and batch, and the trace knows them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from medv_lab.config import GenerationSettings, SettingsError
from medv_lab.diffusion.reference import sample_reference
from medv_lab.diffusion.sampler import sample
from medv_lab.diffusion.state import SamplerState, find_first_stops
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.strategies.base import Cache, Guard, Strategy
from tests.diffusion.test_growth import ENDS, vary
from tests.diffusion.test_growth import VARIATIONS as GROWTH
from tests.diffusion.test_strategies import VARIATIONS, settings_of
from tests.diffusion.toy import MASK, STOP, Toy, prompts, run, trace_of
from tests.model.tiny import tiny_model

SHORT = GenerationSettings(gen_length=8, block_length=4, steps=8)
PACED = ({}, {"steps": 4}, {"remasking": "random"}, {"temperature": 0.8}, {"cfg_scale": 1.0})


def canvases(rows: int, length: int, seed: int = 0, share: float = 0.4, mask: int = MASK) -> torch.Tensor:
    """Random canvases: some full, some empty, the others given at random places."""
    random = np.random.default_rng(seed)
    ids = random.integers(3, MASK, (rows, length))
    shares = np.where(np.arange(rows) % 5 == 4, random.integers(0, 2, rows), share)[:, None]
    return torch.from_numpy(np.where(random.random((rows, length)) < shares, ids, mask))


def ours(kind) -> list[str]:
    return [name for name, one in kind.known.items() if one.__module__.startswith("medv_lab.")]


def check_given_stay(records, start, mask=MASK):
    """No pass changes, commits, remasks or predicts anew what was given."""
    start = start.numpy()
    is_given = start != mask
    for record in records:
        assert (record.canvas[is_given] == start[is_given]).all()
        for rows, positions in (
            (record.rows, record.positions),
            (record.remasked_rows, record.remasked_positions),
            (record.candidate_rows, record.candidate_positions),
        ):
            assert not is_given[rows, positions].any()


def check_trace(records, row, settings, start, tmp_path, stops):
    """The trace of a row replays every canvas, from a file as from memory, and counts what was predicted alone."""
    given = start[row].numpy()
    first = find_first_stops(given[None], MASK, stops)[0]
    made = trace_of(records, row, settings, given=given, first_stop=int(first))
    trace = SampleTrace.load(made.save(tmp_path / f"{row}.npz"))
    own = [record for record in records if record.active[row]]
    assert trace.replay(-1).tolist() == given.tolist()
    for step, record in enumerate(own):
        assert trace.replay(step).tolist() == record.canvas[row].tolist()
    assert trace.is_given.tolist() == (given != MASK).tolist()
    assert not trace.is_given[trace.position].any()
    filled = (trace.replay() != MASK).sum() - trace.is_given.sum()
    assert len(own) == 0 or trace.tokens_per_forward == filled / len(own)
    end = int(own[-1].stops[row]) if own else first
    shown = (own[-1].canvas[row] if own else given)[:end]
    words = [f" w{token}é" for token in shown if token != MASK and token in trace.pieces]
    assert trace.text == "".join(words).strip()
    return trace


@pytest.mark.parametrize("variation", [*PACED, *VARIATIONS], ids=str)
def test_given_tokens_stay_the_trace_replays_and_a_batch_gives_what_single_runs_give(tmp_path, variation):
    ids, mask = prompts()
    settings, stops = settings_of(variation), [[STOP]]
    start = canvases(len(ids), settings.gen_length)
    together = run(Toy(), ids, mask, settings, stops=stops, suppressed=(MASK,), start_ids=start)
    check_given_stay(together, start)
    for row in range(len(ids)):
        own, canvas = ids[row : row + 1, mask[row].bool()], start[row : row + 1]
        alone = run(Toy(), own, None, settings, stops=stops, suppressed=(MASK,), start_ids=canvas)
        one = check_trace(together, row, settings, start, tmp_path, stops)
        other = trace_of(alone, 0, settings, given=canvas[0].numpy())
        for name in ("step", "position", "token_id", "stops", "remasked_step", "remasked_position"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
        for name in ("draft_step", "draft_position", "draft_token"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
        assert MASK not in one.replay()[: one.stops[-1] if len(one.stops) else None]


@pytest.mark.parametrize("cache", ours(Cache))
@pytest.mark.parametrize("strategy", ours(Strategy))
def test_given_tokens_stay_with_every_strategy_cache_and_guard(strategy, cache):
    model = tiny_model(initializer_range=0.5).double()
    mask, stop = model.config.mask_token_id, [[7]]
    start = canvases(3, SHORT.gen_length, seed=1, mask=mask)
    prompt = torch.arange(20, 41).view(3, 7)
    runs = 0
    for guard in ours(Guard):
        try:
            settings = replace(SHORT, remasking=strategy, cache=cache, guard=guard)
        except SettingsError:  # they do not go together, with or without a canvas
            continue
        if settings.remasking.is_growing:
            continue
        more = {"mask_token_id": mask, "suppressed": (mask,), "stop_ids": stop}
        more["is_image"] = torch.zeros(3, 7, dtype=torch.bool)
        more["is_image"][:, 2:4] = True

        def answer(rows, more=more, settings=settings):
            own = {**more, "is_image": more["is_image"][rows]}
            embeds = model.embed_tokens(prompt[rows])
            return list(sample(model, embeds, settings, start_ids=start[rows], **own))

        together = answer(slice(None))
        check_given_stay(together, start, mask)
        for row in range(3):
            alone = answer(slice(row, row + 1))
            of_row = [record.canvas[row].tolist() for record in together if record.active[row]]
            assert [record.canvas[0].tolist() for record in alone] == of_row
        runs += 1
    assert runs or strategy in ("wino", "daedal")


@pytest.mark.parametrize("variation", [{}, {"steps": 6}, {"block_length": 8, "steps": 4}], ids=str)
@pytest.mark.parametrize("stops", [[], [[STOP]], [[STOP], [4, 5], [7]]], ids=["free", "stop", "stops"])
def test_the_algorithm_written_plainly_gives_the_same(variation, stops):
    settings, (ids, mask) = replace(settings_of({}), **variation), prompts(8)
    for row in range(len(ids)):
        own = ids[row : row + 1, mask[row].bool()]
        start = canvases(1, settings.gen_length, seed=row, share=0.5)
        if row % 3 == 0:
            start[0, 10] = STOP
        records = run(Toy(), own, None, settings, stops=stops, suppressed=(2,), start_ids=start)
        toy = Toy()
        more = {"mask_token_id": MASK, "suppressed": (2,), "stop_ids": stops, "start_ids": start}
        plain = list(sample_reference(toy, toy.embed_tokens(own), settings, **more))
        assert [ids.tolist() for ids in plain] == [record.canvas[0].tolist() for record in records]


@pytest.mark.parametrize("variation", GROWTH, ids=str)
def test_an_answer_that_grows_keeps_the_order_of_what_was_given(tmp_path, variation):
    settings = vary(**variation)
    ids, mask = prompts()
    grown = 0
    for row in range(6):
        toy = Toy()
        prefix = toy.embed_tokens(ids[row : row + 1, mask[row].bool()])
        start = canvases(1, settings.gen_length, seed=row, share=0.5)
        more = {"mask_token_id": MASK, "end_ids": ENDS, "stop_ids": [[STOP]], "start_ids": start}
        records = list(sample(toy, prefix, settings, **more))
        trace = trace_of(records, 0, settings, given=start[0].numpy())
        trace = SampleTrace.load(trace.save(tmp_path / f"{row}.npz"))
        given = [token for token in start[0].tolist() if token != MASK]
        for step, record in enumerate(records):
            there = trace.is_there(step)
            assert trace.replay(step)[there].tolist() == record.canvas[0].tolist()
            assert trace.replay(step)[trace.is_given].tolist() == given
            assert (trace.draft_at(step)[~there] == MASK).all()
        assert not trace.is_given[trace.position].any()
        last_given = int(np.flatnonzero(trace.is_given).max(initial=-1))
        assert records[-1].stops[0] > last_given
        grown += trace.gen_length > settings.gen_length
    assert grown


@pytest.mark.parametrize("variation", [{}, {"steps": 6}, {"remasking": "threshold"}], ids=str)
def test_states_that_were_guessed_are_filled_alike(variation):
    settings, (ids, mask) = settings_of(variation), prompts(4)
    for row in range(4):
        own, start = ids[row : row + 1, mask[row].bool()], canvases(1, settings.gen_length, seed=row)
        plain, ahead = (
            run(Toy(), own, None, replace(settings, lookahead=count), stops=[[STOP]], start_ids=start)
            for count in (0, 2)
        )
        check_given_stay(ahead, start)
        assert [record.canvas.tolist() for record in ahead] == [record.canvas.tolist() for record in plain]


def test_the_schedule_counts_what_is_to_be_filled():
    (ids, mask), settings = prompts(3), settings_of({"steps": 8, "block_length": 16})
    start = torch.full((3, 16), MASK)
    start[0, :8] = 5  # 8 masks in 8 passes
    start[1, 4] = STOP  # 4 before the end
    records = run(Toy(), ids, mask, settings, suppressed=(STOP, MASK), stops=[[STOP]], start_ids=start)
    shares = np.stack([record.num_transfer for record in records])
    assert shares[:, 0].tolist() == [1] * 8
    assert shares[:, 1].tolist() == [1] * 4 + [0] * 4
    assert shares[:, 2].tolist() == [2] * 8
    assert records[-1].stops.tolist() == [16, 4, 16]
    assert (records[-1].canvas[1, 5:] == MASK).all()  # nothing behind the end is filled


def test_no_predicted_stop_cuts_what_was_given_and_a_given_one_ends_the_answer():
    state = SamplerState(np.zeros((3, 2), bool), 6, (5,), MASK, [[8], [7, 9]])
    state.start(
        np.array([[MASK, MASK, 4, MASK, MASK, MASK], [MASK, 8, MASK, 4, MASK, 8], [7, 9, MASK, 4, 4, 4]])
    )
    assert state.first_stops.tolist() == [6, 1, 0]
    assert state.is_done.tolist() == [False, False, True]
    every, third = np.ones(3, bool), np.array([0])
    state.commit(third, np.array([1]), np.array([8]), np.ones(1))
    state.find_stops(every)
    assert state.stops.tolist() == [6, 1, 0]  # before the given 4 of row 0 a stop is a token like any other
    state.commit(third, np.array([4]), np.array([8]), np.ones(1))
    state.find_stops(every)
    assert state.stops.tolist() == [4, 1, 0]
    rows, positions = state.committed(every, 0, 6)
    assert list(zip(rows.tolist(), positions.tolist(), strict=True)) == [(0, 1), (0, 4)]
    state.remask(np.array([0]), np.array([4]))
    state.find_stops(every)
    assert state.stops.tolist() == [6, 1, 0]


def test_a_canvas_without_masks_needs_no_pass():
    ids, mask = prompts(2)
    start = canvases(2, 16, share=1.0)
    assert run(Toy(), ids, mask, settings_of({}), start_ids=start) == []
    trace = trace_of([], 0, settings_of({}), given=start[0].numpy())
    assert trace.replay().tolist() == start[0].tolist()
    assert trace.forward_evaluations == len(trace.to_frame()) == 0


def test_canvases_of_another_shape_are_refused():
    ids, mask = prompts(2)
    with pytest.raises(ValueError, match=r"\(2, 12\), should be \(2, 16\)"):
        run(Toy(), ids, mask, settings_of({}), start_ids=canvases(2, 12))


def test_drafts_are_what_each_pass_would_have_written():
    for variation in (*PACED, *VARIATIONS):
        settings, (ids, mask) = settings_of(variation), prompts(3)
        start = canvases(3, settings.gen_length, share=0.2)
        records = run(Toy(), ids, mask, settings, stops=[[STOP]], start_ids=start)
        for row in range(3):
            trace = trace_of(records, row, settings, given=start[row].numpy())
            own = [record for record in records if record.active[row]]
            assert trace.draft_at(-1).tolist() == trace.replay(-1).tolist()
            for step, record in enumerate(own):
                wanted = record.canvas[row].copy()
                mine = record.candidate_rows == row
                for position, token in zip(
                    record.candidate_positions[mine], record.candidate_tokens[mine], strict=True
                ):
                    if wanted[position] == MASK and position >= 0:
                        wanted[position] = token
                assert trace.draft_at(step).tolist() == wanted.tolist()
            assert len(trace.draft_step) < sum(len(record.candidate_rows) for record in own)


def test_what_was_given_is_seen_by_the_model():
    """Other given tokens, another answer: the passes see them, those of later blocks too."""
    ids, mask = prompts(1)
    answers = []
    for token in (4, 5):
        start = torch.full((1, 16), MASK)
        start[0, 12] = token
        records = run(Toy(), ids, mask, settings_of({}), start_ids=start)
        answers.append(records[0].candidate_confidence.tolist())
        assert all(len(after.rows) == 1 for _, after in pairwise(records))
    assert answers[0] != answers[1]
