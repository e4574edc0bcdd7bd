"""Passes made ahead: the same run as without, to the last token, in fewer passes one after another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medv_lab.config import (
    DualCache,
    EditTokens,
    EntropyBound,
    Factor,
    GenerationSettings,
    Hierarchical,
    ImageCache,
    IntervalCache,
    KlStability,
    NoCache,
    PrefixCache,
    ReMDM,
    RepetitionPenalty,
    SettingsError,
    StochasticTransfer,
    Threshold,
)
from medv_lab.diffusion.sampler import sample
from medv_lab.diffusion.trace import SampleTrace
from tests.diffusion.toy import MASK, STOP, Toy, run, trace_of
from tests.model.tiny import tiny_model

PLAIN = GenerationSettings(gen_length=8, block_length=4, steps=8)
WAYS = (
    {},
    {"steps": 4},
    {"steps": 6, "block_length": 8},
    {"block_length": 8, "remasking": "entropy"},
    {"remasking": "margin"},
    {"remasking": "position", "cfg_scale": 1.0},
    {"remasking": "random"},
    {"temperature": 0.7},
    {"guard": RepetitionPenalty(0.3), "steps": 4},
    {"remasking": Threshold(0.6), "block_length": 8},
    {"remasking": Factor(0.8)},
    {"remasking": EntropyBound(0.7), "block_length": 8},
    {"remasking": KlStability(0.3, kl_bound=0.5, stable_passes=1)},
    {"remasking": ReMDM(0.5), "block_length": 8},
    {"remasking": Hierarchical(0.6, 0.2), "block_length": 8},
    {"remasking": EditTokens(0.4, 0.3, post_passes=3), "block_length": 8},
    {"remasking": StochasticTransfer()},
)


def assert_same_run(ahead, alone):
    """Every pass commits and remasks the same; numbers agree up to the rounding of a batch."""
    assert len(ahead) == len(alone)
    for one, other in zip(ahead, alone, strict=True):
        for name in ("canvas", "positions", "tokens", "stops", "remasked_positions", "candidate_tokens"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-9)


def in_sequence(records) -> int:
    return sum(record.sequences > 0 for record in records)


def test_five_hundred_runs_are_the_same_and_take_fewer_passes_in_sequence():
    random, toy = np.random.default_rng(0), Toy()
    waited = {number: [0, 0] for number in range(len(WAYS))}
    for case in range(500):
        way = case % len(WAYS)
        settings = replace(PLAIN, **WAYS[way], seed=case)
        ids = torch.from_numpy(random.integers(0, MASK, (1, int(random.integers(1, 8)))))
        masked = torch.from_numpy(random.random(ids.shape) < 0.1)
        more = {
            "stops": [[STOP], [2, 3]][: case % 3],
            "prompt_masked": masked,
            "suffix_ids": (4, 9)[: case % 2],
        }
        ids[masked] = MASK
        alone = run(toy, ids, None, settings, **more)
        ahead = run(toy, ids, None, replace(settings, lookahead=1 + case % 4), **more)
        assert_same_run(ahead, alone)
        assert in_sequence(alone) == len(alone)
        waited[way][0] += in_sequence(ahead)
        waited[way][1] += len(alone)
    assert all(ours <= theirs for ours, theirs in waited.values())
    assert sum(ours < theirs for ours, theirs in waited.values()) > len(WAYS) // 2


@pytest.mark.parametrize("cfg_scale", [0.0, 1.0])
@pytest.mark.parametrize(
    "cache",
    [
        NoCache(),
        PrefixCache(),
        DualCache(),
        ImageCache(),
        DualCache(refresh=3),
        PrefixCache(refresh=1),
        IntervalCache(answer_refresh=3),
    ],
    ids=str,
)
def test_with_a_cache_too(cache, cfg_scale):
    model = tiny_model(initializer_range=0.5).double()
    mask, fewer = model.config.mask_token_id, 0
    random = np.random.default_rng(4)
    for case in range(6):
        ids = torch.from_numpy(random.integers(5, 200, (1, 6)))
        prompt_masked = torch.zeros(ids.shape, dtype=torch.bool)
        prompt_masked[0, 2] = case == 5  # what must be computed outside the block is never run ahead
        settings = GenerationSettings(
            gen_length=12, block_length=6, steps=12 - 6 * (case % 2), cache=cache, cfg_scale=cfg_scale
        )

        def records(settings, ids=ids, prompt_masked=prompt_masked):
            return list(
                sample(
                    model,
                    model.embed_tokens(ids.masked_fill(prompt_masked, mask)),
                    settings,
                    mask_token_id=mask,
                    suppressed=(mask,),
                    is_image=torch.zeros(ids.shape, dtype=torch.bool),
                    prompt_masked=prompt_masked,
                )
            )

        alone, ahead = records(settings), records(replace(settings, lookahead=3))
        assert_same_run(ahead, alone)
        fewer += in_sequence(ahead) < len(alone)
    assert (fewer > 0) == (cache != PrefixCache(refresh=1))


def test_a_state_that_was_guessed_is_not_run_and_a_trace_says_so(tmp_path):
    toy, ids = Toy(), torch.tensor([[3, 4, 5]])
    records = run(toy, ids, None, replace(PLAIN, lookahead=3))
    assert [len(seen) for seen in toy.seen] == [record.sequences for record in records if record.sequences]
    assert 0 < in_sequence(records) < len(records)
    assert max(record.sequences for record in records) > 1
    trace = SampleTrace.load(trace_of(records, settings=PLAIN).save(tmp_path / "trace.npz"))
    assert trace.manifest["sequences"] == [record.sequences for record in records]
    assert trace.passes_in_sequence == in_sequence(records)
    assert trace.forward_evaluations == len(records)
    plain = trace_of(run(toy, ids, None, PLAIN), settings=PLAIN)
    assert "sequences" not in plain.manifest
    assert plain.passes_in_sequence == plain.forward_evaluations


def test_what_cannot_look_ahead_is_refused():
    for strategy in ("wino", "daedal"):
        with pytest.raises(SettingsError, match="give 0"):
            GenerationSettings(remasking=strategy, block_length=64, lookahead=2)
    with pytest.raises(SettingsError, match="lookahead is -1"):
        replace(PLAIN, lookahead=-1)
    with pytest.raises(ValueError, match="one at a time"):
        run(Toy(), torch.tensor([[3, 4], [5, 6]]), None, replace(PLAIN, lookahead=1))
