"""Recorded attention: it is what eager attention computes, its grids lie where the patches came from."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.attention_maps import ROLLOUT
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.generation import ask, ask_many
from medv_lab.model.processing import MedVProcessor
from tests.model.tiny import PATCH, SIDE, tiny_model, tiny_processor, tiny_tokenizer

SETTINGS = GenerationSettings(gen_length=6, block_length=3, steps=6, stop=())
PATCHES = (SIDE // PATCH) ** 2


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def model():
    return tiny_model(initializer_range=0.4)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def eager_maps(model, processor, image, question) -> list[torch.Tensor]:
    """Attention (T, T) of each layer in the first pass, mean over heads, by transformers' own output."""
    inputs = processor(image, question)
    ids = torch.cat([inputs["input_ids"], torch.full((1, 6), model.config.mask_token_id)], dim=1)
    embeds = model.merge_image_features(ids, inputs["pixel_values"]).inputs_embeds
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model.model(inputs_embeds=embeds, output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation("sdpa")
    return [layer[0].mean(0) for layer in maps]


def recorded(model, processor, maps, settings=SETTINGS, image=None) -> SampleTrace:
    image = picture(0) if image is None else image
    return ask(model, processor, image, "What?", settings, record_attention=maps).trace


def test_maps_and_rollout_are_those_of_the_pass_that_committed(model, processor):
    layers = eager_maps(model, processor, picture(0), "What?")
    first = int((processor(picture(0), "What?")["input_ids"][0] == -200).nonzero())
    # the rollout is the product of the layers with their residual paths
    one, two = ((layer + torch.eye(len(layer))) / 2 for layer in layers)
    for maps, wanted in ((True, layers), (ROLLOUT, [two @ one])):
        trace = recorded(model, processor, maps)
        row = len(layers[0]) - 6 + int(trace.position[0])
        assert trace.attention.maps == ((0, 1) if maps is True else (ROLLOUT,))
        assert trace.attention.values.shape == (6, len(wanted), PATCHES)
        expected = torch.stack([layer[row, first : first + PATCHES] for layer in wanted])
        np.testing.assert_allclose(trace.attention.values[0], expected, atol=2e-4)


def test_recording_changes_neither_the_answer_nor_the_model(model, processor):
    plain = ask(model, processor, picture(0), "What?", SETTINGS).trace
    hooks = [len(layer.self_attn._forward_hooks) for layer in model.model.layers]
    trace = recorded(model, processor, (-1,))
    assert trace.attention.maps == (1,)
    assert trace.token_id.tolist() == plain.token_id.tolist()
    assert plain.attention is None
    assert model.config._attn_implementation == "sdpa"
    assert [len(layer.self_attn._forward_hooks) for layer in model.model.layers] == hooks


def test_runs_at_the_same_time_record_what_they_would_alone(model, processor):
    asked = [(picture(seed), maps) for seed in range(3) for maps in (True, ROLLOUT, None)]

    def answer(image, maps):
        more = {} if maps is None else {"record_attention": maps}
        return ask(model, processor, image, "What?", SETTINGS, progress=False, **more).trace

    alone = [answer(*one) for one in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda one: answer(*one), asked * 3))
    for trace, expected in zip(together, alone * 3, strict=True):
        assert trace.token_id.tolist() == expected.token_id.tolist()
        if expected.attention is not None:
            np.testing.assert_array_equal(trace.attention.values, expected.attention.values)


def test_a_run_that_records_leaves_the_model_as_others_see_it(model, processor):
    def hooks():
        return [len(layer.self_attn._forward_hooks) for layer in model.model.layers]

    before = hooks()

    def look(run):
        assert model.config._attn_implementation == "sdpa"
        assert hooks() == before
        # another question amid the passes of a watched run is not watched
        ask(model, processor, picture(5), "Why?", SETTINGS, progress=False)

    more = {"record_attention": True, "progress": False}
    trace = ask(model, processor, picture(0), "What?", SETTINGS, watch=look, **more).trace
    expected = ask(model, processor, picture(0), "What?", SETTINGS, **more).trace
    np.testing.assert_array_equal(trace.attention.values, expected.attention.values)


@pytest.mark.parametrize(
    "changes", [{"cfg_scale": 0.5}, {"remasking": "wino"}, {"block_length": 6, "steps": 2}]
)
def test_shares_are_shares_in_every_kind_of_run(model, processor, changes):
    for maps in (True, ROLLOUT):
        values = recorded(model, processor, maps, replace(SETTINGS, **changes)).attention.values
        assert (values >= 0).all()
        assert (values.sum(-1) > 0).all() and (values.astype(float).sum(-1) < 1).all()


def test_rows_of_a_batch_record_what_they_would_alone(model, processor):
    images, questions = [picture(0), None, [picture(1), picture(2)]], ["What?", "Why?", "Which of the two?"]
    together = ask_many(model, processor, images, questions, SETTINGS, record_attention=True)
    for answer, image, question in zip(together, images, questions, strict=True):
        alone = ask(model, processor, image, question, SETTINGS, record_attention=True)
        if image is None:
            assert answer.trace.attention is None and alone.trace.attention is None
            continue
        np.testing.assert_allclose(answer.trace.attention.values, alone.trace.attention.values, atol=1e-3)
        assert answer.trace.attention.grids == alone.trace.attention.grids
    assert [grid.image for grid in together[2].trace.attention.grids] == [0, 1]


def test_a_cancelled_run_and_a_watcher_see_what_there_is(model, processor, tmp_path):
    seen = []
    answer = ask(
        model,
        processor,
        picture(0),
        "What?",
        SETTINGS,
        cancel=lambda: len(seen) == 3,
        record_attention=True,
        watch=lambda run: seen.append(run.trace()),
    )
    assert [trace.forward_evaluations for trace in seen] == [1, 2, 3]
    assert [len(trace.attention.values) for trace in seen] == [1, 2, 3]
    loaded = SampleTrace.load(answer.trace.save(tmp_path / "t.npz"))
    assert np.array_equal(loaded.attention.values, answer.trace.attention.values)
    assert (loaded.attention.maps, loaded.attention.grids) == ((0, 1), answer.trace.attention.grids)


@pytest.mark.parametrize("maps", [(2,), (-3,), (), "all", 1.5, 3])
def test_unknown_layers_are_refused(model, processor, maps):
    with pytest.raises(ValueError, match="record_attention is .* 2 layers"):
        recorded(model, processor, maps)


def test_a_cache_is_refused(model, processor):
    with pytest.raises(ValueError, match="cache 'none'"):
        recorded(model, processor, True, replace(SETTINGS, cache="prefix"))


def test_grids_of_an_anyres_prompt_fill_the_recorded_places():
    model = tiny_model(image_aspect_ratio="anyres_max_4", mm_patch_merge_type="spatial_unpad")
    processor = MedVProcessor.from_config(tiny_tokenizer(), model.config)
    attention = recorded(model, processor, True, image=picture(3, 60, 90)).attention
    places = np.concatenate([grid.indices().ravel() for grid in attention.grids])
    assert len(attention.grids) == 2
    assert len(np.unique(places)) == len(places)
    newlines = attention.grids[1].rows
    assert attention.values.shape[2] == len(places) + newlines
