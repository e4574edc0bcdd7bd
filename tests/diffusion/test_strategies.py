"""Every strategy, guard and revision: as its slow loop says, alone as in a batch, replayed, and ended early."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from medv_lab.config import (
    Credit,
    EditTokens,
    EntropyBound,
    Factor,
    GenerationSettings,
    Hierarchical,
    KlStability,
    PositionDecay,
    ReMDM,
    ReMDMConfidence,
    ReMDMLoop,
    ReMDMRescale,
    RepetitionPenalty,
    Spread,
    StochasticTransfer,
    SureEnd,
    Threshold,
    Wino,
)
from medv_lab.diffusion.forward_runner import ForwardRunner
from medv_lab.diffusion.predictions import entropy
from medv_lab.diffusion.state import SamplerState
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.strategies.base import Guard, Strategy
from medv_lab.strategies.committing import divergence
from tests.diffusion.slow import END, distributions, run_slow
from tests.diffusion.toy import MASK, STOP, Toy, final, prompts, run, trace_of

LONG = GenerationSettings(gen_length=16, block_length=8, steps=16)
VARIATIONS = (
    {"remasking": "entropy", "steps": 6},
    {"remasking": "margin", "steps": 6},
    {"remasking": PositionDecay(0.2), "steps": 6},
    {"guard": RepetitionPenalty(0.3), "steps": 4},
    {"guard": Spread(3), "steps": 4},
    {"remasking": Threshold(0.6)},
    {"remasking": Threshold(0.6), "max_passes": 6},
    {"remasking": Threshold(0.9), "steps": 2},
    {"remasking": Factor(0.8)},
    {"remasking": EntropyBound(0.7)},
    {"remasking": KlStability(0.3, kl_bound=0.5, stable_passes=1)},
    {"remasking": ReMDM(0.5), "seed": 1},
    {"remasking": ReMDM(0.6), "steps": 8},
    {"remasking": KlStability(0.3, kl_bound=0.5, stable_passes=1), "steps": 8},
    {"remasking": Wino(0.4, verify_threshold=0.99)},
    {"remasking": Wino(0.6, verify_threshold=0.9), "max_passes": 6},
    {"guard": SureEnd(0.1), "steps": 4},
    {"remasking": Hierarchical(0.6, 0.2)},
    {"remasking": Credit(0.6)},
    {"remasking": StochasticTransfer(), "steps": 8},
    {"remasking": EditTokens(0.4, 0.3, post_passes=3)},
    {"remasking": EditTokens(0.3, 0.0, post_passes=2), "max_passes": 8},
    {"remasking": ReMDMRescale(scale=0.5)},
    {"remasking": ReMDMConfidence(), "seed": 2},
    {"remasking": ReMDMLoop(0.6, loop_filled=0.7), "steps": 20},
)
every = pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: "-".join(map(str, v.values())))


def settings_of(variation) -> GenerationSettings:
    return replace(LONG, **variation)


def run_all(variation, **more):
    ids, mask = prompts()
    return run(Toy(), ids, mask, settings_of(variation), stops=[[STOP]], end_ids=(END,), **more)


@every
def test_each_pass_does_what_the_definition_says(variation):
    ids, mask = prompts()
    records = run_all(variation)
    for row in range(len(ids)):
        own = [record for record in records if record.active[row]]
        expected = run_slow(Toy(), ids[row, mask[row].bool()].tolist(), settings_of(variation), STOP)
        assert len(own) == len(expected)
        for record, (commits, remasked, stop) in zip(own, expected, strict=True):
            mine = record.rows == row
            assert dict(zip(record.positions[mine], record.tokens[mine], strict=True)) == commits
            assert set(record.remasked_positions[record.remasked_rows == row]) == remasked
            assert record.stops[row] == stop


@every
def test_a_batch_gives_what_single_runs_give(variation):
    ids, mask = prompts()
    together = run_all(variation, suffix_ids=(4, 9))
    toy, settings = Toy(), settings_of(variation)
    for row in range(len(ids)):
        own = ids[row : row + 1, mask[row].bool()]
        alone = run(toy, own, None, settings, stops=[[STOP]], end_ids=(END,), suffix_ids=(4, 9))
        ours, theirs = trace_of(together, row, settings), trace_of(alone, 0, settings)
        for name in ("step", "position", "token_id", "stops", "remasked_step", "remasked_position"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), name
        np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=1e-6)


@every
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_answer_is_filled_in_time_and_the_prompt_stays(variation, temperature):
    toy, (ids, mask), settings = Toy(), prompts(), replace(settings_of(variation), temperature=temperature)
    records = run(toy, ids, mask, settings, stops=[[STOP]], end_ids=(END,), suppressed=(MASK,))
    most = settings.most_passes
    assert len(records) <= most
    for row in range(len(ids)):
        assert MASK not in final(records[-1], row)
        places = [(r.block, r.step) for r in records if r.active[row]]
        assert len(set(places)) == len(places)
        assert max(step for _, step in places) < most // settings.num_blocks
    prefix = toy.embed_tokens(ids)
    whole = [seen for seen in toy.seen if len(seen) == len(ids)]
    assert whole
    assert all(torch.equal(seen[:, : ids.shape[1]], prefix) for seen in whole)


@every
def test_replay_equals_the_canvas_after_every_pass(tmp_path, variation):
    records, settings = run_all(variation), settings_of(variation)
    for row in range(len(records[0].active)):
        path = trace_of(records, row, settings).save(tmp_path / f"{row}.npz")
        trace = SampleTrace.load(path)
        own = [record for record in records if record.active[row]]
        for step, record in enumerate(own):
            assert trace.replay(step).tolist() == record.canvas[row].tolist()
            words = [f" w{token}é" for token in final(record, row) if token != MASK]
            assert trace.text_at(step) == "".join(words).strip()
        assert trace.forward_evaluations == len(own)
        filled = (records[-1].canvas[row] != MASK).sum()
        assert trace.tokens_per_forward == pytest.approx(filled / len(own))
        assert len(trace.step) - (trace.remasked_in >= 0).sum() == filled


@every
def test_cancelling_at_any_step_leaves_the_first_part(variation):
    whole, settings = run_all(variation), settings_of(variation)
    for passes in range(len(whole)):
        calls = iter(range(passes + 1))
        records = run_all(variation, cancel=lambda calls=calls, passes=passes: next(calls) == passes)
        assert len(records) == passes
        trace = trace_of(records, 1, settings)
        assert trace.forward_evaluations == sum(bool(record.active[1]) for record in whole[:passes])
        before = whole[passes - 1].canvas[1] if passes else np.full(settings.gen_length, MASK)
        assert trace.replay().tolist() == before.tolist()


@every
def test_the_same_settings_give_the_same_run_and_seeds_matter_only_where_something_is_drawn(variation):
    settings = settings_of(variation)
    one, two = (run_all(variation) for _ in range(2))
    assert np.array_equal(one[-1].canvas, two[-1].canvas)
    other = run_all({**variation, "seed": settings.seed + 10})
    same = len(one) == len(other) and all(
        np.array_equal(a.canvas, b.canvas) for a, b in zip(one, other, strict=True)
    )
    assert same == (not isinstance(settings.remasking, ReMDM | StochasticTransfer))


@every
def test_the_variations_do_something(variation):
    """The checks above compare runs; here the runs differ from plain ones, so that there is something to compare."""
    settings, records = settings_of(variation), run_all(variation)
    plain = run_all({"steps": settings.steps})
    counts = {int((record.rows == row).sum()) for record in records for row in range(8) if record.active[row]}
    if settings.remasking.is_adaptive and not settings.remasking.is_revising:
        assert len(counts) > 1
        assert len(records) < settings.gen_length
    elif settings.remasking.is_revising:
        assert sum(len(record.remasked_rows) for record in records) > 3
    else:
        assert any(
            set(zip(a.rows, a.positions, strict=True)) != set(zip(b.rows, b.positions, strict=True))
            for a, b in zip(records, plain, strict=False)
        )


def test_a_remasked_stop_is_no_stop_any_more():
    ids, mask = prompts()
    moved = 0
    for cap in (0.3, 0.5, 0.7):
        settings = replace(LONG, remasking=ReMDM(cap))
        records = run(Toy(), ids, mask, settings, stops=[[STOP]])
        for before, after in pairwise(records):
            broken = before.stops < after.stops
            moved += broken.sum()
            for row in np.flatnonzero(broken):
                assert before.stops[row] in after.remasked_positions[after.remasked_rows == row]
        for row in range(len(ids)):
            answer = records[-1].canvas[row].tolist()
            assert records[-1].stops[row] == (answer.index(STOP) if STOP in answer else LONG.gen_length)
    assert moved


def test_with_as_many_steps_as_positions_one_is_enough_for_an_adaptive_pass():
    # not Factor, which lets the last candidate of a row go along
    for strategy in (Threshold(1.0), KlStability(kl_bound=0.0)):
        ours = run_all({"remasking": strategy})
        plain = run_all({})
        assert len(ours) == len(plain)
        assert all(np.array_equal(a.canvas, b.canvas) for a, b in zip(ours, plain, strict=True)), strategy


class Still(Toy):
    """Predicts at each position what it always predicts there, but for the first pass where that is to move."""

    def __init__(self, moves=0):
        super().__init__()
        self.moves = moves

    def mixed(self, inputs_embeds, attention_mask, position_ids):
        rows, length, _ = inputs_embeds.shape
        places, self.moves = torch.arange(length) + self.moves, 0
        return self.table(places % MASK).expand(rows, -1, -1)


# Block 0: passes of one token until enough changes were small. Block 1 is watched meanwhile, but has a first pass.
@pytest.mark.parametrize(
    ("bound", "stable_passes", "moves", "passes"),
    [(0.01, 1, 0, 2 + 2), (0.01, 2, 0, 3 + 2), (0.01, 1, 1, 3 + 2), (0.0, 1, 0, 8 + 8)],
)
def test_a_position_is_stable_after_as_many_small_changes(bound, stable_passes, moves, passes):
    settings = replace(LONG, remasking=KlStability(0.0, kl_bound=bound, stable_passes=stable_passes))
    assert len(run(Still(moves), prompts(1)[0], settings=settings)) == passes


@pytest.mark.parametrize("sure", [1, 3])
def test_of_stable_positions_those_above_the_threshold_are_committed(sure):
    ids, settings = prompts(1)[0], replace(LONG, steps=8)
    threshold = np.sort(run(Still(), ids, settings=settings)[1].candidate_confidence)[-1 - sure]
    settings = replace(settings, remasking=KlStability(float(threshold), stable_passes=1))
    second = run(Still(), ids, settings=settings)[1]
    is_sure = second.candidate_confidence > threshold
    assert is_sure.sum() == sure
    assert second.positions.tolist() == second.candidate_positions[is_sure].tolist()


def test_verification_hides_the_token_and_follows_the_guidance():
    toy, (ids, _) = Toy(), prompts(1)
    settings = replace(LONG, remasking="wino", cfg_scale=1.5)
    size, answer, rows, at = ids.shape[1], [MASK] * LONG.gen_length, np.zeros(2, np.int64), np.array([9, 12])
    answer[9], answer[12] = 4, 7
    state = SamplerState(np.zeros((1, size), bool), LONG.gen_length, (), MASK, [])
    state.commit(rows, at, np.array([4, 7]), np.ones(2))
    runner = ForwardRunner(toy, settings, state, toy.embed_tokens(ids))
    with torch.no_grad():
        verify = (rows, at, range(8, 16))
        verified = runner.run(np.array([True]), np.array([0]), np.array([10]), verify).verified
        given, blank = (
            distributions(toy, prompt, answer, range(8, 16)) for prompt in (ids[0].tolist(), [MASK] * size)
        )
    for position, token, ours in zip(at.tolist(), (4, 7), verified, strict=True):
        p, q = (
            torch.tensor(probs["shadow", position], dtype=torch.float64).log() for probs in (given, blank)
        )
        assert ours == pytest.approx(float((q + 2.5 * (p - q)).softmax(-1)[token]), rel=1e-9)


def test_every_strategy_and_guard_is_tested_here():
    tested = [settings_of(variation) for variation in VARIATIONS]
    elsewhere = {"low_confidence", "random", "daedal"}
    assert {one.remasking.name for one in tested} | elsewhere == {
        name for name, one in Strategy.known.items() if one.__module__.startswith("medv_lab.")
    }
    assert {one.guard.name for one in tested} == set(Guard.known)


def test_divergence_is_that_of_the_definition_and_survives_impossible_tokens():
    random = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 5, 7, dtype=torch.float64, generator=random).log_softmax(-1)
    expected = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(divergence(p, q), expected)
    cut = p.index_fill(-1, torch.tensor([2]), -torch.inf).log_softmax(-1)
    assert divergence(cut, cut).tolist() == [0.0] * 5
    assert entropy(cut).isfinite().all()
