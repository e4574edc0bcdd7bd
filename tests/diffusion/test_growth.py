"""Answers that grow: as the slow loop says, replayed as they were, and within their bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medv_lab.config import Daedal, GenerationSettings, SettingsError
from medv_lab.decoding.denoising import denoise
from medv_lab.diffusion.sampler import sample
from medv_lab.diffusion.trace import SampleTrace, TraceError
from medv_lab.generation import ask_many
from tests.diffusion.slow import run_slow_growing
from tests.diffusion.toy import MASK, STOP, Toy, final, prompts, trace_of
from tests.model.tiny import tiny_model, tiny_processor

ENDS = (STOP, 5)
GROWING = GenerationSettings(
    gen_length=6, block_length=6, steps=6, remasking=Daedal(growth=3, end_window=4, max_length=17)
)
VARIATIONS = (
    {"end_threshold": 0.9, "unsure_threshold": 0.0},  # grows before it is filled
    {"end_threshold": 0.0, "unsure_threshold": 0.9, "threshold": 0.8},  # grows while it is filled
    {"end_threshold": 0.3, "unsure_threshold": 0.8, "block_length": 3, "expand_threshold": 0.6},
    {"end_threshold": 0.9, "unsure_threshold": 0.9, "block_length": 2, "growth": 2},
)


def vary(**changes):
    """Vary the block length and the parameters of the strategy."""
    block_length = changes.pop("block_length", GROWING.block_length)
    return replace(GROWING, block_length=block_length, remasking=replace(GROWING.remasking, **changes))


every = pytest.mark.parametrize("variation", VARIATIONS, ids=str)


def run(row, settings, stop=STOP, **more):
    ids, mask = prompts()
    toy = Toy()
    prefix = toy.embed_tokens(ids[row : row + 1, mask[row].bool()])
    more = {"mask_token_id": MASK, "end_ids": ENDS, "stop_ids": [] if stop is None else [[stop]], **more}
    return list(sample(toy, prefix, settings, **more)), toy


@every
@pytest.mark.parametrize("stop", [STOP, None])
def test_each_pass_does_what_the_definition_says(variation, stop):
    settings, (ids, mask) = vary(**variation), prompts(4)
    lengths = set()
    for row in range(len(ids)):
        records, _ = run(row, settings, stop)
        slow = run_slow_growing(Toy(), ids[row, mask[row].bool()].tolist(), settings, set(ENDS), stop)
        assert len(records) == len(slow)
        for record, (commits, grown, answer) in zip(records, slow, strict=True):
            assert dict(zip(record.positions, record.tokens, strict=True)) == commits
            assert list(record.grown) == grown
            assert record.canvas[0].tolist() == answer
        lengths.add(records[-1].canvas.shape[1])
    assert max(lengths) > settings.gen_length
    assert max(lengths) <= settings.longest


@every
def test_the_trace_replays_every_canvas(tmp_path, variation):
    settings = vary(**variation)
    for row in range(4):
        records, _ = run(row, settings)
        trace = SampleTrace.load(trace_of(records, 0, settings).save(tmp_path / f"{row}.npz"))
        assert trace.gen_length == records[-1].canvas.shape[1]
        for step, record in enumerate(records):
            assert trace.replay(step)[trace.is_there(step)].tolist() == record.canvas[0].tolist()
            assert (trace.replay(step)[~trace.is_there(step)] == MASK).all()
            words = [f" w{token}é" if token != MASK else "░" for token in final(record)]
            assert trace.text_at(step, "░") == "".join(words).strip()
        assert trace.is_there(-1).sum() == settings.gen_length
        assert trace.forward_evaluations == len(records)
        assert np.array_equal(np.sort(np.unique(trace.position)), np.flatnonzero(trace.replay() != MASK))


@every
def test_it_is_filled_in_time_and_prompt_and_suffix_stay(variation):
    settings = vary(**variation)
    for row in range(4):
        records, toy = run(row, settings, suppressed=(MASK,), suffix_ids=(4, 9))
        assert sum(len(record.rows) > 0 for record in records) <= settings.longest
        assert MASK not in final(records[-1])
        ids, mask = prompts()
        prompt = toy.embed_tokens(ids[row, mask[row].bool()])
        for seen in toy.seen:
            assert torch.equal(seen[0, : len(prompt)], prompt)
            assert torch.equal(seen[0, -2:], toy.embed_tokens(torch.tensor([4, 9])))


@every
def test_cancelling_leaves_the_first_part_and_the_same_settings_give_the_same_run(variation):
    settings = vary(**variation)
    whole, _ = run(1, settings)
    for passes in range(len(whole)):
        calls = iter(range(passes + 1))
        records, _ = run(1, settings, cancel=lambda calls=calls, passes=passes: next(calls) == passes)
        assert [r.canvas.tolist() for r in records] == [r.canvas.tolist() for r in whole[:passes]]
        trace = trace_of(records, 0, settings)
        assert trace.forward_evaluations == passes
        assert trace.replay().tolist() == (whole[passes - 1].canvas[0].tolist() if passes else [MASK] * 6)


def test_a_batch_is_answered_one_by_one_and_texts_come_out():
    model, processor = tiny_model(initializer_range=0.4), tiny_processor()
    settings = vary(end_threshold=0.5, unsure_threshold=0.5)
    questions = ["What?", "Is there a nodule in the left lung?"]
    together = ask_many(model, processor, None, questions, settings, batch_size=2, progress=False)
    alone = [ask_many(model, processor, None, [q], settings, progress=False)[0] for q in questions]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert any(answer.trace.gen_length > settings.gen_length for answer in together)
    inputs = processor(None, questions)
    with pytest.raises(ValueError, match="one at a time"):
        next(denoise(model, **inputs, settings=settings))


def test_what_cannot_grow_says_what_is_allowed():
    with pytest.raises(SettingsError, match="give a max_length as large or larger"):
        vary(max_length=4)
    with pytest.raises(SettingsError, match="max_passes is 6, but remasking 'daedal' grows"):
        replace(GROWING, max_passes=6)
    with pytest.raises(SettingsError, match="give 'none'"):
        replace(GROWING, cache="dual")
    with pytest.raises(SettingsError, match="chooses without one"):
        replace(GROWING, guard="spread")
    with pytest.raises(ValueError, match="one at a time"):
        next(sample(Toy(), torch.zeros(2, 2, 12), GROWING, mask_token_id=MASK))


def test_a_trace_that_grew_says_so_and_its_births_must_fit(tmp_path):
    records, _ = run(0, vary(**VARIATIONS[0]))
    trace = trace_of(records, 0, GROWING)
    assert trace.born.max() >= 0
    with pytest.raises(TraceError, match="born"):
        replace(trace, born=trace.born + 99)
    with pytest.raises(TraceError, match="unequal"):
        replace(trace, born=trace.born[:-1])
