"""What is kept between passes: against a slow loop over layers, alone as in a batch, and exact where it says so."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from medv_lab.config import (
    DualCache,
    EditTokens,
    GenerationSettings,
    ImageCache,
    IntervalCache,
    NoCache,
    PositionDecay,
    PrefixCache,
    SettingsError,
    Threshold,
)
from medv_lab.diffusion.cache import KeyValueCache, states_at
from medv_lab.diffusion.sampler import sample
from tests.model.tiny import tiny_model

SETTINGS = GenerationSettings(gen_length=12, block_length=4, steps=12)
PROMPT = 7
KINDS = [PrefixCache, DualCache, ImageCache]
INTERVAL = partial(IntervalCache, answer_refresh=2)
STOP = 3


class Recorder:
    """The model, with what its backbone was given and what head gave."""

    def __init__(self, model):
        self.model, self.computed, self.logits, self.masks = model, [], [], []
        self.embed_tokens = model.embed_tokens

    def backbone(self, embeds, *rest, **more):
        self.computed.append(embeds.shape[1])
        self.masks.append(rest[0])
        return self.model.backbone(embeds, *rest, **more)

    def head(self, hidden):
        logits = self.model.head(hidden)
        self.logits.append(logits.clone())  # the sampler writes to what it is given
        return logits


@pytest.fixture(scope="module")
def model():
    """Large random weights, so that keys and values change much and no two confidences are equal."""
    return tiny_model(initializer_range=0.5).double()


def prompts():
    """Four prompts padded on the left, and which of their places are an image's."""
    random = np.random.default_rng(1)
    ids = torch.from_numpy(random.integers(5, 200, (4, PROMPT)))
    mask = torch.ones(4, PROMPT, dtype=torch.bool)
    image = torch.zeros(4, PROMPT, dtype=torch.bool)
    for row, padding in enumerate((0, 2, 1, 3)):
        mask[row, :padding] = False
        image[row, padding + 1 : PROMPT - 1 - row % 2] = True
    return ids, mask, image


def run(model, settings, rows=slice(None), stops=(), **more):
    ids, mask, image = (part[rows] for part in prompts())
    if len(ids) == 1:
        ids, image, mask = ids[mask][None], image[mask][None], None
    recorder = Recorder(model)
    with torch.no_grad():
        records = list(
            sample(
                recorder,
                model.embed_tokens(ids),
                settings,
                mask_token_id=model.config.mask_token_id,
                suppressed=(model.config.mask_token_id,),
                attention_mask=mask,
                stop_ids=stops,
                is_image=image,
                **more,
            )
        )
    return records, recorder


def test_one_mask_is_for_all_heads_and_says_what_each_computed_index_sees(model):
    _, recorder = run(model, replace(SETTINGS, cache=DualCache()))
    total = PROMPT + SETTINGS.gen_length
    assert {mask.shape for mask in recorder.masks} == {(4, 1, count, total) for count in recorder.computed}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_refreshed_in_every_pass_it_is_exact_as_it_says(model, kind, guidance):
    plain = replace(SETTINGS, cfg_scale=guidance, steps=6)
    settings = replace(plain, cache=kind(refresh=1))
    exact, cached = run(model, plain)[0], run(model, settings)[0]
    assert plain.cache.is_exact
    assert settings.cache.is_exact
    for one, other in zip(exact, cached, strict=True):
        assert np.array_equal(one.canvas, other.canvas)
        np.testing.assert_allclose(one.candidate_confidence, other.candidate_confidence, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "variation",
    [
        {},
        {"refresh": 2, "cfg_scale": 0.5},
        {"remasking": Threshold(0.4)},
        {"remasking": EditTokens(0.4, 0.0, post_passes=2)},
    ],
    ids=str,
)
def test_a_batch_gives_what_single_runs_give_and_differs_from_the_exact_run(model, kind, variation):
    refresh = variation.get("refresh")
    more = {name: value for name, value in variation.items() if name != "refresh"}
    settings = replace(SETTINGS, cache=kind(refresh), **more)
    free, _ = run(model, settings)
    stop = int(free[-1].canvas[0, 5])  # ends one answer early, so that the rows of the cache become fewer
    together, _ = run(model, settings, stops=[[stop]], suffix_ids=(9, 8))
    assert not all(record.active.all() for record in together)
    for row in range(4):
        alone, _ = run(model, settings, slice(row, row + 1), stops=[[stop]], suffix_ids=(9, 8))
        own = [record for record in together if record.active[row]]
        for one, other in zip(own, alone, strict=True):
            mine = one.candidate_rows == row
            np.testing.assert_allclose(one.candidate_confidence[mine], other.candidate_confidence, rtol=1e-7)
            assert one.canvas[row].tolist() == other.canvas[0].tolist()
    exact, _ = run(model, replace(settings, cache=NoCache()))
    assert not settings.cache.is_exact
    drift = [
        abs(one.candidate_confidence - other.candidate_confidence).max(initial=0)
        for one, other in zip(free, exact, strict=False)
        if one.candidate_confidence.shape == other.candidate_confidence.shape
    ]
    assert max(drift) > 1e-4


@pytest.mark.parametrize("kind", [*KINDS, INTERVAL])
@pytest.mark.parametrize("refresh", [None, 3])
def test_logits_are_those_of_a_slow_loop_over_places_and_layers(model, kind, refresh):
    settings = replace(SETTINGS, cache=kind(refresh))
    row = 0
    records, recorder = run(model, settings, slice(row, row + 1))
    ids, _, image = (part[row].tolist() for part in prompts())
    mask_id = model.config.mask_token_id
    answer, kept = [mask_id] * settings.gen_length, {}
    for record, logits in zip(records, recorder.logits, strict=True):
        first = PROMPT + record.block * settings.block_length
        last = first + settings.block_length
        every = range(PROMPT + settings.gen_length)
        if record.step % (refresh or 99) == 0:
            computed = list(every)
        elif kind is PrefixCache:
            computed = [place for place in every if place >= first]
        elif kind is INTERVAL and record.step % 2 == 0:
            computed = [place for place in every if place >= PROMPT]
        elif kind in (DualCache, INTERVAL):
            computed = [place for place in every if first <= place < last]
        else:
            computed = [place for place in every if place >= PROMPT or not image[place]]
        hidden = slow_body(model, ids + answer, computed, kept)
        at = [computed.index(PROMPT + position) for position in record.candidate_positions]
        # transformers normalises and rotates in float32; what is out of date differs by far more
        torch.testing.assert_close(logits, model.head(hidden[at]), rtol=0, atol=1e-5)
        answer = record.canvas[0].tolist()
    assert not any(token == mask_id for token in answer)


@torch.no_grad()
def slow_body(model, ids, computed, kept):
    """Hidden states (Q, H) of the computed places; `kept` holds (layer, place) to key and value of each head."""
    tower, heads = model.model, model.config.num_attention_heads
    hidden = tower.embed_tokens(torch.tensor(ids))[computed]
    width = hidden.shape[1] // heads
    rate = model.config.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2).double() / width)
    for number, layer in enumerate(tower.layers):
        normed, attention = layer.input_layernorm(hidden), layer.self_attn
        queries = attention.q_proj(normed).view(-1, heads, width)
        keys = attention.k_proj(normed).view(-1, heads, width)
        values = attention.v_proj(normed).view(-1, heads, width)
        for at, place in enumerate(computed):
            kept[number, place] = rotate(keys[at], place * rate), values[at]
        all_keys = torch.stack([kept[number, place][0] for place in range(len(ids))])
        all_values = torch.stack([kept[number, place][1] for place in range(len(ids))])
        out = []
        for at, place in enumerate(computed):
            scores = (rotate(queries[at], place * rate) * all_keys).sum(-1) / width**0.5  # (T, heads)
            out.append((scores.softmax(0)[..., None] * all_values).sum(0).flatten())
        hidden = hidden + attention.o_proj(torch.stack(out))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return tower.norm(hidden)


def rotate(x, angle):
    left, right = x.chunk(2, -1)
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], -1)


def test_between_refreshes_only_what_the_kind_says_is_computed(model):
    total, block = PROMPT + SETTINGS.gen_length, SETTINGS.block_length
    whole = [total] * block
    assert run(model, SETTINGS)[1].computed == whole * 3
    _, dual = run(model, replace(SETTINGS, cache="dual"), slice(0, 1))
    assert dual.computed == [total, *[block] * 3] * 3
    _, prefix = run(model, replace(SETTINGS, cache=PrefixCache(2)), slice(0, 1))
    assert prefix.computed == [size for left in (12, 8, 4) for size in (total, left) * 2]
    _, interval = run(model, replace(SETTINGS, cache=INTERVAL()), slice(0, 1))
    assert interval.computed == [total, block, SETTINGS.gen_length, block] * 3
    images = int(prompts()[2][0].sum())
    assert images == 5
    _, image = run(model, replace(SETTINGS, cache="image"), slice(0, 1))
    assert image.computed == [total, *[total - images] * 3] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_in_the_prompt_is_computed_wherever_it_is(model, kind):
    masked = torch.zeros(4, PROMPT, dtype=torch.bool)
    masked[1, -3] = masked[3, -2] = True
    settings = replace(SETTINGS, cache=kind(), remasking=PositionDecay(0.0))
    records, _ = run(model, settings, prompt_masked=masked)
    assert all(np.isfinite(record.candidate_confidence).all() for record in records)
    assert any((record.positions < 0).any() for record in records)


def test_impossible_caches_say_what_is_allowed(model):
    for values, says in (
        ({"cache": "suffix"}, "none, prefix, dual, image"),
        ({"cache": {"name": "dual", "refresh": 0}}, "1 or larger"),
        ({"cache": {"name": "none", "refresh": 4}}, "no parameter of the cache 'none'"),
        ({"cache": "dual", "remasking": "wino"}, "give 'none'"),
    ):
        with pytest.raises(SettingsError, match=says):
            GenerationSettings(**values)
    with pytest.raises(ValueError, match="which prompt indices"):
        next(sample(model, torch.zeros(1, 2, 16), GenerationSettings(cache="image"), mask_token_id=0))


def test_neighbouring_indices_are_written_as_any_others_are():
    old, new = torch.randn(2, 3, 2, 9, 4), torch.randn(2, 3, 2, 4, 4)
    kept = []
    for span in (None, (3, 7)):
        cache = KeyValueCache()
        cache.update(*old.clone(), 0)
        cache.indices, cache.span = torch.arange(3, 7).repeat(3, 1), span
        kept.append(cache.update(*new, 0))
    for one, other in zip(*kept, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(kept[1][0][:, :, 3:7], new[0])
    assert torch.equal(kept[1][0][:, :, 7:], old[0][:, :, 7:])


def test_states_are_taken_row_by_row():
    states, at = torch.randn(3, 5, 4), torch.tensor([[4, 0], [1, 1], [2, 3]])
    assert torch.equal(states_at(states, at), states.take_along_dim(at[..., None], 1))
    assert torch.equal(
        states_at(states[:1].expand(3, -1, -1), at),
        states[:1].expand(3, -1, -1).take_along_dim(at[..., None], 1),
    )
