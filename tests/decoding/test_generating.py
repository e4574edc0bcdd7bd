"""`model.generate` in the terms of transformers: settings by their names, streamers, criteria, processors, outputs."""

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.generation.streamers import BaseStreamer

from medv_lab.config import DualCache, GenerationSettings, SettingsError, Threshold
from medv_lab.decoding.generation_config import MedVGenerationConfig
from medv_lab.generation import generate
from medv_lab.model import MedVForMaskedDiffusion
from tests.model.tiny import SIDE, tiny_model

LENGTH = 12


@pytest.fixture(scope="module")
def model():
    return tiny_model(initializer_range=0.5)


@pytest.fixture(scope="module")
def inputs(model):
    ids = torch.arange(20, 34).view(2, 7)
    ids[:, 2] = model.config.image_token_index
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "pixel_values": pixels}


def answer(model, inputs, **more):
    return model.generate(**inputs, **{"max_new_tokens": LENGTH, "block_length": 4, **more})


def test_it_gives_prompts_and_the_answers_of_the_plain_function(model, inputs):
    settings = GenerationSettings(gen_length=LENGTH, block_length=4, steps=LENGTH)
    plain = generate(model, settings=settings, stop_ids=[[model.config.eot_token_id]], **inputs)
    sequences = answer(model, inputs)
    assert sequences.shape == (2, 7 + LENGTH)
    assert torch.equal(sequences[:, :7], inputs["input_ids"])
    for row, ids in zip(sequences[:, 7:], plain, strict=True):
        assert row[: len(ids)].tolist() == ids.tolist()
        assert set(row[len(ids) :].tolist()) <= {model.config.eos_token_id}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gen_length": 8}, GenerationSettings(8, 8, 8)),
        ({"max_new_tokens": 96, "steps": 48}, GenerationSettings(96, 32, 48)),
        ({"num_inference_steps": 32}, GenerationSettings(64, 32, 32)),
        ({"diffusion_steps": 32, "block_size": 16}, GenerationSettings(64, 16, 32)),
        ({"threshold": 0.8}, GenerationSettings(remasking=Threshold(0.8))),
        (
            {"threshold": 0.8, "max_denoising_steps": 8},
            GenerationSettings(64, 32, 8, remasking=Threshold(0.8), max_passes=8),
        ),
        ({"do_sample": True}, GenerationSettings(temperature=1.0)),
        ({"do_sample": True, "temperature": 0.3}, GenerationSettings(temperature=0.3)),
        ({"do_sample": False, "temperature": 0.3}, GenerationSettings()),
        ({"cache": "dual", "alg": "margin"}, GenerationSettings(cache=DualCache(), remasking="margin")),
        ({"num_beams": 1, "top_p": 1.0, "use_cache": True}, GenerationSettings()),
    ],
)
def test_names_of_the_field_are_understood(given, expected):
    assert MedVGenerationConfig(**given).settings() == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_token": 8}, "near are max_new_tokens"),
        ({"num_inference_step": 8}, "near are num_inference_steps"),
        ({"streamers": None}, "near are streamer"),
        ({"whatever": 1}, "known are alg"),
        ({"gen_length": 8, "max_new_tokens": 16}, "given twice"),
        ({"top_p": 0.9}, "give logits_processor"),
        ({"block_length": 5}, "near are"),
        ({"max_length": 7, "max_new_tokens": None}, "the prompt has 7 ids already"),
        ({"stop_strings": "x"}, "without tokenizer"),
    ],
)
def test_what_is_no_setting_is_refused_with_what_is_near(model, inputs, given, message):
    with pytest.raises(SettingsError, match=message):
        model.generate(**inputs, **given)


def test_settings_are_saved_with_the_model(model, inputs, tmp_path):
    own = MedVGenerationConfig(threshold=0.6, max_new_tokens=8, cache=DualCache(), seed=3)
    model.save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    loaded = MedVForMaskedDiffusion.from_pretrained(tmp_path)
    assert loaded.generation_config.settings() == own.settings()
    assert torch.equal(loaded.generate(**inputs), model.generate(**inputs, generation_config=own))
    GenerationConfig(eos_token_id=1, num_beams=2, max_new_tokens=8).save_pretrained(
        tmp_path
    )  # of another model
    assert MedVForMaskedDiffusion.from_pretrained(tmp_path).generation_config.max_new_tokens == 8


def test_output_holds_sequences_tokens_per_forward_and_trace(model, inputs):
    output = answer(model, inputs, steps=6, return_dict_in_generate=True)
    assert torch.equal(output.sequences, answer(model, inputs, steps=6))
    assert len(output.trace) == 6
    assert output.tokens_per_forward.tolist() == pytest.approx([2.0, 2.0])


class Recorder(BaseStreamer):
    def __init__(self):
        self.confirmed, self.drafts, self.is_ended = [], [], False

    def put(self, value):
        self.confirmed.append(value.clone())

    def put_draft(self, value, **kwargs):
        self.drafts.append(value.clone())

    def end(self):
        self.is_ended = True


def test_streamers_get_prompt_drafts_blocks_and_the_end(model, inputs):
    one = {name: part[:1] for name, part in inputs.items()}
    streamer = Recorder()
    sequences = answer(model, one, streamer=streamer)
    assert streamer.is_ended
    assert torch.equal(streamer.confirmed[0], one["input_ids"])
    assert [part.shape[1] for part in streamer.confirmed[1:]] == [4, 4, 4]
    assert torch.equal(torch.cat(streamer.confirmed, dim=1), sequences)
    assert len(streamer.drafts) == LENGTH
    assert streamer.drafts[0].shape == (1, LENGTH) and streamer.drafts[-1].shape == (1, 4)


class Only(LogitsProcessor):
    def __init__(self, token):
        self.token, self.shapes = token, []

    def __call__(self, input_ids, scores):
        self.shapes.append((input_ids.shape, scores.shape))
        return scores.new_full(scores.shape, -50.0).index_fill(1, torch.tensor([self.token]), 0.0)


def test_logits_processors_see_answers_and_change_what_is_committed(model, inputs):
    processor = Only(77)
    sequences = answer(model, inputs, logits_processor=[processor])
    assert (sequences[:, 7:] == 77).all()
    assert processor.shapes[0] == ((8, LENGTH), (8, model.config.vocab_size))


def test_criteria_end_an_answer_where_they_say(model, inputs):
    whole = answer(model, inputs)[:, 7:]
    ends = [lambda ids, scores: torch.tensor([ids.shape[1] >= 7 + 6])]
    output = answer(model, inputs, stopping_criteria=ends, return_dict_in_generate=True)
    assert len(output.trace) == 8  # the pass that completes the second block is not needed for six tokens
    assert torch.equal(output.sequences[:, 7:13], whole[:, :6])
    assert (output.sequences[:, 13:] == model.config.eos_token_id).all()
    token = int(whole[0, 3])
    first = 7 + whole[0].tolist().index(token)
    one = {name: part[:1] for name, part in inputs.items()}
    cut = answer(model, one, stopping_criteria=[EosTokenCriteria(token)])[0]
    assert cut[first] == token
    assert (cut[first + 1 :] == model.config.eos_token_id).all()


def test_answers_start_from_what_is_given(model, inputs):
    start = torch.full((2, LENGTH), model.config.mask_token_id)
    start[:, 3], start[0, 9] = 60, 61
    output = answer(model, inputs, decoder_input_ids=start, return_dict_in_generate=True)
    assert output.sequences[:, 10].tolist() == [60, 60] and output.sequences[0, 16] == 61
    assert not (output.sequences == model.config.mask_token_id).any()
    with pytest.raises(ValueError, match="answers to start from"):
        answer(model, inputs, decoder_input_ids=start[:1])
    full = torch.arange(40, 52).repeat(2, 1)
    full[1, 5] = model.config.eot_token_id
    output = answer(model, inputs, decoder_input_ids=full, return_dict_in_generate=True)
    assert (len(output.trace), output.tokens_per_forward.tolist()) == (0, [0.0, 0.0])
    assert output.sequences[0, 7:].tolist() == full[0].tolist()
    assert output.sequences[1, 7:].tolist() == [*full[1, :5].tolist(), *[model.config.eos_token_id] * 7]
