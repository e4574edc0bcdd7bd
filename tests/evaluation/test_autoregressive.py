"""Baselines of the real architectures, tiny and random: prompts, pictures, batches and passes."""

import numpy as np
import pytest
import torch

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import NextTokenResponder, TransformersResponder, load_transformers
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoint_files import CheckpointError
from medv_lab.records import Question
from tests.evaluation.tiny_baselines import LLAVA_PROMPT, tiny_llama, tiny_llava, tiny_qwen
from tests.model.tiny import tiny_config, tiny_processor

LENGTH = 6
TEXTS = ("Is there a nodule?", "What organ is shown in the image?", "Why?")
PICTURES = [np.full((16, 16, 3), shade, np.uint8) for shade in (0, 120, 255)]
QUESTIONS = [
    Question(str(n), text, picture) for n, (text, picture) in enumerate(zip(TEXTS, PICTURES, strict=True))
]


def said(predictions):
    return [(one.text, one.passes) for one in predictions]


def responder_of(name, made, **settings):
    return TransformersResponder(*made, name=name, **{"max_new_tokens": LENGTH, **settings})


def llava(**settings):
    return responder_of("llava", tiny_llava(), **{"prompt": LLAVA_PROMPT, **settings})


def qwen(**settings):
    return responder_of("qwen", tiny_qwen(), **settings)


def llama(made=None, **settings):
    return responder_of("llama", made or tiny_llama(), **settings)


@pytest.mark.parametrize("make", [llava, qwen, llama])
def test_a_batch_gives_what_single_questions_give(make):
    responder = make()
    mixed = [*QUESTIONS, Question("3", "And without a picture?")]
    together = responder.answer(mixed)
    assert together == [responder.answer([question])[0] for question in mixed]
    assert len({one.text for one in together}) > 1
    assert all(1 <= one.passes <= LENGTH for one in together)


@pytest.mark.parametrize(("make", "looks"), [(llava, True), (qwen, True), (llama, False)])
def test_pictures_change_answers_of_whoever_looks(make, looks):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(6)]
    found = make().answer([Question(str(n), TEXTS[1], picture) for n, picture in enumerate(pictures)])
    assert (len({one.text for one in found}) > 1) is looks


def test_passes_are_the_tokens_up_to_the_end():
    model, tokenizer = tiny_llama()
    free = llama((model, tokenizer))
    long = free.answer(QUESTIONS[:1])[0]
    assert long.passes == LENGTH
    inputs = tokenizer(free._render(TEXTS[0], False), return_tensors="pt", add_special_tokens=False)
    ids = model.generate(inputs["input_ids"], do_sample=False, max_new_tokens=LENGTH, pad_token_id=0)
    third = ids[0, inputs["input_ids"].shape[1] + 2].item()
    model.generation_config.eos_token_id = [third, 0]
    one = llama((model, tokenizer)).answer(QUESTIONS[:1])[0]
    assert one.passes <= 3
    assert long.text.startswith(one.text)


def test_a_checkpoint_s_own_sampling_settings_are_not_followed():
    made = tiny_llama()
    plain, config = llama(made).answer(QUESTIONS), made[0].generation_config
    config.do_sample, config.temperature, config.repetition_penalty = True, 5.0, 3.0
    assert llama(made).answer(QUESTIONS) == plain


def test_a_run_follows_weights_and_settings():
    assert llama().run == llama().run
    assert llama(max_new_tokens=2).run != llama().run
    changed = tiny_llama()
    with torch.no_grad():
        changed[0].lm_head.weight[0, 0] += 1
    assert llama(changed).run != llama().run


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (llama, {"prompt": "no place"}, "{question}"),
        (llama, {"max_new_tokens": 0}, "greater than 0"),
        (llava, {"prompt": "chat"}, "no chat template"),
        (llava, {"prompt": "USER: {question}"}, "image token '<image>'"),
    ],
)
def test_a_prompt_form_that_does_not_fit_is_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("kind", "tiny", "make", "prompt"),
    [("image-text", tiny_llava, llava, LLAVA_PROMPT), ("text", tiny_llama, llama, "chat")],
)
def test_checkpoint_folders_are_loaded_and_answer_the_same(tmp_path, kind, tiny, make, prompt):
    for part in tiny():
        part.save_pretrained(tmp_path)
    again = responder_of("loaded", load_transformers(kind, tmp_path, "cpu"), prompt=prompt)
    assert said(again.answer(QUESTIONS)) == said(make().answer(QUESTIONS))
    assert len(again.model["sha256"]) == 64


def test_nothing_is_downloaded_unless_asked_for():
    with pytest.raises(CheckpointError, match="download=True"):
        load_transformers("text", "owner/no-such-model")


def twin(**settings):
    torch.manual_seed(0)
    model = MedVForNextToken(tiny_config(is_causal=True, initializer_range=0.6))
    settings = GenerationSettings(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH, **settings)
    return NextTokenResponder(model, tiny_processor(), settings)


def test_the_twin_answers_pictures_and_counts_its_tokens():
    responder = twin()
    together = responder.answer(QUESTIONS)
    assert together == [responder.answer([question])[0] for question in QUESTIONS]
    model, processor = responder.network, responder._processor
    ids = model.write(**processor(PICTURES[0], TEXTS[0]), max_new_tokens=LENGTH)[0]
    assert said(together)[0] == (processor.decode_answer(ids), len(ids))


def test_the_twin_s_run_follows_its_decoding():
    assert twin().run == twin().run
    assert twin(temperature=0.5).run != twin().run
