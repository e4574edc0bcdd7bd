"""Properties of the sampler, its settings and its trace, on a small denoiser made for the purpose."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from medv_lab.config import PRESETS, GenerationSettings, SettingsError
from medv_lab.diffusion.sampler import sample
from medv_lab.diffusion.schedule import transfer_counts
from medv_lab.diffusion.trace import MASK_GLYPH, SampleTrace, TraceError, ids_in, make_trace

VOCABULARY, HIDDEN, MASK = 23, 12, 22
STOP = 1


class Toy(torch.nn.Module):
    """Mixes all positions, so that every commit changes every later prediction."""

    def __init__(self, mask_bias: float = -8.0):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(VOCABULARY, HIDDEN)
        layer = torch.nn.TransformerEncoderLayer(HIDDEN, 2, 24, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = torch.nn.Linear(HIDDEN, VOCABULARY)
        with torch.no_grad():
            self.out.weight *= 6
            self.out.bias[MASK] = mask_bias
        self.calls = 0
        self.eval().double()

    def embed_tokens(self, ids):
        return self.table(ids)

    def body(self, inputs_embeds, attention_mask=None, position_ids=None):
        self.calls += 1
        length = inputs_embeds.shape[1]
        places = torch.arange(length).expand(len(inputs_embeds), -1) if position_ids is None else position_ids
        angle = places[..., None] * torch.arange(1, HIDDEN + 1) * 0.37
        padding = None if attention_mask is None else ~attention_mask.bool()
        return self.layers(inputs_embeds + angle.sin(), src_key_padding_mask=padding)

    def head(self, hidden):
        return self.out(hidden)


SETTINGS = GenerationSettings(gen_length=12, block_length=6, steps=12)


def prompts(batch=8, longest=9):
    """Prompts of different lengths, padded on the left, and their attention mask."""
    random = np.random.default_rng(3)
    ids = torch.zeros(batch, longest, dtype=torch.long)
    mask = torch.zeros(batch, longest, dtype=torch.long)
    for row in range(batch):
        size = int(random.integers(3, longest + 1))
        ids[row, -size:] = torch.from_numpy(random.integers(0, MASK, size))
        mask[row, -size:] = 1
    return ids, mask


def run(toy, ids, mask=None, settings=SETTINGS, stops=(), **more):
    return list(
        sample(
            toy,
            toy.embed_tokens(ids),
            settings,
            mask_token_id=MASK,
            attention_mask=mask,
            stop_ids=stops,
            **more,
        )
    )


def final(record, row=0):
    return record.canvas[row, : record.stops[row]].tolist()


def trace_of(records, row=0, settings=SETTINGS):
    return make_trace(
        records,
        row,
        gen_length=settings.gen_length,
        block_length=settings.block_length,
        mask_token_id=MASK,
        pieces={token: f" w{token}é".encode() for token in ids_in(records)},
        manifest={"seed": 0},
    )


@pytest.mark.parametrize(("masked", "steps"), [(0, 3), (5, 5), (8, 3), (3, 8), (64, 7)])
def test_transfer_counts_sum_to_the_masked_positions(masked, steps):
    counts = transfer_counts(masked, steps)
    assert sum(counts) == masked
    assert len(counts) == steps
    assert counts == sorted(counts, reverse=True)
    assert max(counts) - min(counts) <= 1


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="steps 0"):
        transfer_counts(3, 0)


@pytest.mark.parametrize(
    "variation",
    [
        {},
        {"remasking": "random", "seed": 5},
        {"temperature": 0.8, "seed": 2},
        {"temperature": 0.8, "noise": "reference"},
        {"cfg_scale": 1.0},
        {"steps": 4},
        {"steps": 48},
    ],
)
def test_a_batch_gives_what_single_runs_give(variation):
    toy, (ids, mask) = Toy(), prompts()
    settings = dataclasses.replace(SETTINGS, **variation)
    if settings.noise == "reference":  # it draws for every position, so the padded length must be the same
        ids, mask = ids[:, -3:], None
    together = run(toy, ids, mask, settings, stops=[[STOP]])
    for row in range(len(ids)):
        own = ids[row : row + 1] if mask is None else ids[row : row + 1, mask[row].bool()]
        alone = run(toy, own, None, settings, stops=[[STOP]])
        assert final(together[-1], row) == final(alone[-1])
        assert trace_of(together, row).forward_evaluations == len(alone)
    assert len({tuple(final(together[-1], row)) for row in range(len(ids))}) > 3


def test_stops_fall_at_different_places_and_cut_the_answers():
    ids, mask = prompts()
    last = run(Toy(), ids, mask, stops=[[STOP]])[-1]
    assert len(set(last.stops.tolist())) > 1
    assert all(STOP not in final(last, row) for row in range(len(ids)))


def test_temperature_zero_is_deterministic_and_seeds_matter_above_it():
    toy, (ids, mask) = Toy(), prompts()
    assert final(run(toy, ids, mask)[-1]) == final(run(toy, ids, mask)[-1])
    hot = dataclasses.replace(SETTINGS, temperature=1.5)
    draws = {
        tuple(final(run(toy, ids[:1], mask[:1], dataclasses.replace(hot, seed=seed))[-1]))
        for seed in range(4)
    }
    assert len(draws) > 1


def test_more_steps_than_positions_end_early():
    ids, _ = prompts(1)
    assert len(run(Toy(), ids, settings=dataclasses.replace(SETTINGS, steps=60))) == SETTINGS.gen_length


def test_blocks_are_filled_from_left_to_right():
    ids, _ = prompts(1)
    for record in run(Toy(), ids):
        assert (record.positions // SETTINGS.block_length == record.block).all()


def test_suppressed_tokens_are_never_predicted():
    ids, mask = prompts()
    free = run(Toy(), ids, mask)
    common = int(np.bincount(free[-1].canvas.ravel()).argmax())
    held = run(Toy(), ids, mask, suppressed=(common,))
    assert common in free[-1].canvas
    assert common not in held[-1].canvas


def test_a_predicted_mask_stays_masked_and_can_be_in_the_answer():
    ids, _ = prompts(1)
    records = run(Toy(mask_bias=60.0), ids)
    assert (records[-1].canvas == MASK).any()
    assert len(records) == SETTINGS.steps


def test_the_head_sees_only_masked_positions_of_reached_blocks():
    toy, (ids, _) = Toy(), prompts(1)
    seen = []
    head = toy.out.forward
    toy.head = lambda hidden: (seen.append(len(hidden)), head(hidden))[1]
    run(toy, ids)
    assert seen == [6, 5, 4, 3, 2, 1] * 2


def test_prompt_embeddings_are_not_changed():
    toy, (ids, _) = Toy(), prompts(1)
    prefix = toy.embed_tokens(ids).detach()
    before = prefix.clone()
    list(sample(toy, prefix, SETTINGS, mask_token_id=MASK))
    assert torch.equal(prefix, before)


@pytest.mark.parametrize("passes", [0, 1, 5])
def test_cancelling_leaves_a_valid_part(passes):
    toy, (ids, _) = Toy(), prompts(1)
    records = run(toy, ids, cancel=lambda: toy.calls >= passes)
    assert len(records) == passes
    trace = trace_of(records)
    assert trace.forward_evaluations == passes
    assert (trace.replay() == MASK).sum() == SETTINGS.gen_length - passes


def test_replay_equals_the_canvas_after_every_pass(tmp_path):
    ids, mask = prompts()
    records = run(Toy(), ids, mask, stops=[[STOP]])
    for row in range(len(ids)):
        trace = SampleTrace.load(trace_of(records, row).save(tmp_path / f"{row}.npz"))
        own = [record for record in records if record.active[row]]
        for step, record in enumerate(own):
            assert trace.replay(step).tolist() == record.canvas[row].tolist()
        assert trace.text == "".join(f" w{token}é" for token in final(records[-1], row)).strip()
        assert trace.text == trace_of(records, row).text
        assert trace.text_at(-1, MASK_GLYPH) == MASK_GLYPH * SETTINGS.gen_length


def test_the_table_has_one_row_a_commit():
    ids, _ = prompts(1)
    records = run(Toy(), ids)
    frame = trace_of(records).to_frame()
    assert len(frame) == SETTINGS.gen_length
    assert frame.position.tolist() == [int(place) for record in records for place in record.positions]
    assert frame.confidence.between(0, 1).all()
    assert (frame.entropy >= 0).all()


def test_alternatives_are_sorted_probabilities_that_hold_the_choice():
    ids, _ = prompts(1)
    trace = trace_of(run(Toy(), ids))
    assert (np.diff(trace.alternative_probs, axis=1) <= 0).all()
    assert trace.alternative_ids[:, 0].tolist() == trace.token_id.tolist()
    np.testing.assert_allclose(trace.alternative_probs[:, 0], trace.confidence, rtol=1e-6)


def test_files_that_are_no_trace_give_one_clear_error(tmp_path):
    ids, _ = prompts(1)
    whole = trace_of(run(Toy(), ids)).save(tmp_path / "whole.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:200])
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, x=np.arange(3))
    text = tmp_path / "text.npz"
    text.write_text("hello")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, meta=np.array([{}], dtype=object))
    for path in (cut, foreign, text, pickled, tmp_path / "absent.npz"):
        with pytest.raises(TraceError, match=path.name):
            SampleTrace.load(path)


def test_steps_outside_a_trace_are_refused():
    ids, _ = prompts(1)
    with pytest.raises(ValueError, match="passes 0..11"):
        trace_of(run(Toy(), ids)).replay(12)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"gen_length": 64, "block_length": 24}, "16, 32"),
        ({"gen_length": 64, "block_length": 32, "steps": 63}, "62 or 64"),
        ({"gen_length": 0}, "1 or larger"),
        ({"steps": -4}, "1 or larger"),
        ({"block_length": 2.0}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"temperature": float("nan")}, "0 or larger"),
        ({"temperature": -1}, "0 or larger"),
        ({"cfg_scale": "high"}, "give a number"),
        ({"remasking": "lowest"}, "low_confidence, random"),
        ({"noise": "none"}, "masked, reference"),
        ({"stop": "<|eot_id|>"}, "tuple of texts"),
        ({"suffix": None}, "give a text"),
        ({"suppressed_tokens": [1]}, "tuple of token ids"),
        ({"seed": -1}, "0 or larger"),
    ],
)
def test_impossible_settings_say_what_is_allowed(values, says):
    with pytest.raises(SettingsError, match=says):
        GenerationSettings(**values)


def test_unknown_settings_are_an_error_with_a_suggestion():
    with pytest.raises(SettingsError, match="did you mean gen_length"):
        GenerationSettings.from_dict({"gen_lenght": 64})


def test_settings_survive_a_manifest():
    for settings in PRESETS.values():
        assert GenerationSettings.from_dict(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
    assert (SETTINGS.L, SETTINGS.B, SETTINGS.Z, SETTINGS.num_blocks, SETTINGS.steps_per_block) == (
        12,
        6,
        12,
        2,
        6,
    )
