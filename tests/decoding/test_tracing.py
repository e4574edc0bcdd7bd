"""The logit lens of runs: the model's own numbers, in every kind of run, alone as in a batch; no run changes by it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medv_lab.config import Daedal, GenerationSettings
from medv_lab.decoding.denoising import denoise
from medv_lab.diffusion.lens import LENS_ARRAYS
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.generation import ask, ask_many
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=6, block_length=3, steps=6, stop=())
LAYERS = 3
KINDS = (
    {},
    {"cfg_scale": 0.7},
    {"cache": "prefix"},
    {"cache": "dual"},
    {"cache": "dual", "cfg_scale": 0.7},
    {"lookahead": 2},
    {"lookahead": 2, "cache": "dual", "cfg_scale": 0.7},
    {"remasking": "wino"},
    {"remasking": "remdm", "seed": 2},
    {"block_length": 6, "steps": 2},
    {
        "block_length": 6,
        "remasking": Daedal(end_threshold=0.9, unsure_threshold=0.9, growth=2, max_length=12),
    },
)
QUESTIONS = ["What?", "Is there a nodule in the left lung?", "Where?"]
CANVASES = (None, [40, None, 41, None, None, 42], [None, None, None, None, 43, None])


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (30, 40, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def model():
    return tiny_model(initializer_range=0.4, num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(params=KINDS, ids=str)
def settings(request):
    return replace(SETTINGS, **request.param)


def answer(model, processor, settings, **more):
    return ask(model, processor, picture(0), QUESTIONS[0], settings, **{"record_hidden": True, **more}).trace


def test_every_layer_says_what_transformers_hidden_states_say(model, processor):
    lens = answer(model, processor, SETTINGS).lens
    assert lens.layers == (0, 1, 2)
    inputs = processor(picture(0), QUESTIONS[0])
    ids = torch.cat([inputs["input_ids"], torch.full((1, 6), model.config.mask_token_id)], dim=1)
    other = tiny_model(initializer_range=0.4, num_hidden_layers=LAYERS)  # transformers' hooks stay in a model
    with torch.no_grad():
        embeds = other.merge_image_features(ids, inputs["pixel_values"]).inputs_embeds
        states = other.model(inputs_embeds=embeds, output_hidden_states=True, use_cache=False).hidden_states
        for layer in range(LAYERS):
            hidden = states[layer + 1] if layer == LAYERS - 1 else other.model.norm(states[layer + 1])
            logits = other.lm_head(hidden[0, -6:])
            logits[:, list(processor.special.suppressed)] = -torch.inf
            probs = logits.softmax(-1)
            assert lens.token_id[0, layer].tolist() == probs.argmax(-1).tolist()
            np.testing.assert_allclose(lens.probability[0, layer], probs.max(-1).values, rtol=1e-4)
            entropies = torch.distributions.Categorical(probs).entropy()
            np.testing.assert_allclose(lens.entropy[0, layer], entropies, atol=1e-4)


def test_the_last_layer_says_what_the_sampler_reads(model, processor, settings):
    inputs = processor(picture(0), QUESTIONS[0])
    trace = answer(model, processor, settings)
    records = list(denoise(model, **inputs, settings=settings, record_hidden=(-1,)))
    assert len(records) == trace.forward_evaluations
    for step, record in enumerate(records):
        there = np.flatnonzero(trace.is_there(step - 1))
        at = there[record.candidate_positions]
        assert trace.lens.token_id[step, -1, at].tolist() == record.candidate_tokens.tolist()
        np.testing.assert_allclose(
            trace.lens.probability[step, -1, at], record.candidate_confidence, rtol=1e-4
        )
        with torch.no_grad():
            logits = model.head(record.hidden[0, 0, 0])
        assert record.hidden.shape == (2 if settings.cfg_scale else 1, 1, 1, len(there), 16)
        assert logits.shape == (len(there), model.config.vocab_size)


def test_it_changes_no_token_and_no_number(model, processor, settings):
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with_lens, plain = (
        answer(model, processor, settings),
        answer(model, processor, settings, record_hidden=False),
    )
    assert plain.lens is None
    for name, value in vars(plain).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, getattr(with_lens, name)), name
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_a_batch_gives_what_single_runs_give_and_so_does_a_file(model, processor, settings, tmp_path):
    images = [picture(0), None, picture(1)]
    more = {"record_hidden": True, "progress": False}
    together = ask_many(model, processor, images, QUESTIONS, settings, canvases=CANVASES, **more)
    for row, one in enumerate(together):
        other = ask(model, processor, images[row], QUESTIONS[row], settings, canvas=CANVASES[row], **more)
        loaded = SampleTrace.load(one.trace.save(tmp_path / "t.npz")).lens
        for name in LENS_ARRAYS:
            assert np.array_equal(getattr(loaded, name), getattr(one.trace.lens, name), equal_nan=True)
            values = getattr(other.trace.lens, name)
            np.testing.assert_allclose(getattr(loaded, name), values, rtol=2e-3, atol=1e-4, err_msg=name)


def test_rank_and_probability_are_of_the_token_that_stands_there_in_the_end(model, processor, settings):
    trace = answer(model, processor, settings)
    lens, final = trace.lens, trace.replay()
    is_known = lens.token_id >= 0
    assert set(lens.token_id[is_known].tolist()) <= trace.pieces.keys()
    assert (np.isnan(lens.entropy) == ~is_known).all()
    is_top = lens.token_id == final
    assert (lens.final_rank[is_top & is_known] == 1).all()
    np.testing.assert_array_equal(
        lens.final_probability[is_top & is_known], lens.probability[is_top & is_known]
    )
    others = is_known & ~is_top & (final != trace.mask_token_id)
    assert (lens.final_rank[others] > 1).all()
    assert (lens.final_probability[others] < lens.probability[others]).all()
    if settings.cache.name == "none" and not settings.remasking.is_growing:
        assert is_known.all()
    else:
        assert is_known.any() and not is_known.all()


def test_some_layers_are_those_of_all_and_unknown_ones_are_refused(model, processor):
    whole, some = (answer(model, processor, SETTINGS, record_hidden=one).lens for one in (True, (-1, 0)))
    assert some.layers == (0, 2)
    assert np.array_equal(some.entropy, whole.entropy[:, [0, 2]])
    for wrong in ((3,), (), "all", 1.5):
        with pytest.raises(ValueError, match="record_hidden is .* 3 layers"):
            answer(model, processor, SETTINGS, record_hidden=wrong)


def test_attention_can_be_recorded_beside_it(model, processor):
    both = answer(model, processor, SETTINGS, record_attention=True)
    assert both.attention is not None
    np.testing.assert_allclose(both.lens.entropy, answer(model, processor, SETTINGS).lens.entropy, atol=1e-4)


def test_threads_record_at_once(model, processor):
    kinds = [replace(SETTINGS, **kind) for kind in KINDS[:4]]
    alone = [answer(model, processor, kind).lens for kind in kinds]
    found = [None] * len(kinds)

    def run(number):
        found[number] = answer(model, processor, kinds[number]).lens

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(kinds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, found, strict=True):
        assert all(np.array_equal(getattr(one, n), getattr(other, n), equal_nan=True) for n in LENS_ARRAYS)


def test_a_run_that_was_ended_has_the_lens_of_its_passes(model, processor):
    asked = iter([False, False, True])
    trace = answer(model, processor, SETTINGS, cancel=lambda: next(asked))
    assert trace.lens.token_id.shape == (2, LAYERS, 6)
    is_masked = trace.replay() == trace.mask_token_id
    assert (trace.lens.final_rank[..., is_masked] == 0).all()
    assert (trace.lens.final_rank[..., ~is_masked] > 0).all()
    assert answer(model, processor, SETTINGS, cancel=lambda: True).lens.token_id.shape == (0, LAYERS, 6)
