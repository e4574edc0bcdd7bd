"""Baselines of the real architectures, tiny and random: prompts, pictures, batches and passes."""

import numpy as np
import pytest
import torch

from medv_lab.evaluation.autoregressive import (
    ImageTextResponder,
    NextTokenResponder,
    TextResponder,
    load_image_text,
    load_text,
)
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


def llava(**settings):
    model, processor = tiny_llava()
    return ImageTextResponder(
        model, processor, **{"name": "llava", "prompt": LLAVA_PROMPT, "max_new_tokens": LENGTH, **settings}
    )


def qwen(**settings):
    return ImageTextResponder(*tiny_qwen(), **{"name": "qwen", "max_new_tokens": LENGTH, **settings})


def llama(**settings):
    return TextResponder(*tiny_llama(), **{"name": "llama", "max_new_tokens": LENGTH, **settings})


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
    free = TextResponder(model, tokenizer, name="llama", max_new_tokens=LENGTH)
    long = free.answer(QUESTIONS[:1])[0]
    assert long.passes == LENGTH
    inputs = tokenizer(free._render(TEXTS[0]), return_tensors="pt", add_special_tokens=False)
    ids = model.generate(inputs["input_ids"], do_sample=False, max_new_tokens=LENGTH, pad_token_id=0)
    third = ids[0, inputs["input_ids"].shape[1] + 2].item()
    model.generation_config.eos_token_id = [third, 0]
    one = TextResponder(model, tokenizer, name="llama", max_new_tokens=LENGTH).answer(QUESTIONS[:1])[0]
    assert one.passes <= 3
    assert long.text.startswith(one.text)


def test_a_checkpoint_s_own_sampling_settings_are_not_followed():
    model, tokenizer = tiny_llama()
    plain = TextResponder(model, tokenizer, name="llama", max_new_tokens=LENGTH).answer(QUESTIONS)
    model.generation_config.do_sample, model.generation_config.temperature = True, 5.0
    model.generation_config.repetition_penalty = 3.0
    assert TextResponder(model, tokenizer, name="llama", max_new_tokens=LENGTH).answer(QUESTIONS) == plain


def test_a_run_follows_weights_and_settings():
    assert llama().run == llama().run
    assert llama(max_new_tokens=2).run != llama().run
    changed = tiny_llama()
    with torch.no_grad():
        changed[0].lm_head.weight[0, 0] += 1
    assert TextResponder(*changed, name="llama", max_new_tokens=LENGTH).run != llama().run


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (llama, {"prompt": "no place"}, "{question}"),
        (llama, {"max_new_tokens": 0}, "1 or more"),
        (llava, {"prompt": "chat"}, "no chat template"),
        (llava, {"prompt": "USER: {question}"}, "image token '<image>'"),
    ],
)
def test_a_prompt_form_that_does_not_fit_is_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_checkpoint_folders_are_loaded_and_answer_the_same(tmp_path):
    model, processor = tiny_llava()
    model.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    loaded = load_image_text(tmp_path / "llava", "cpu")
    again = ImageTextResponder(*loaded, name="llava", prompt=LLAVA_PROMPT, max_new_tokens=LENGTH)
    assert said(again.answer(QUESTIONS)) == said(llava().answer(QUESTIONS))
    assert len(again.model["sha256"]) == 64
    model, tokenizer = tiny_llama()
    model.save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    again = TextResponder(*load_text(tmp_path / "llama", "cpu"), name="llama", max_new_tokens=LENGTH)
    assert said(again.answer(QUESTIONS)) == said(llama().answer(QUESTIONS))


def test_nothing_is_downloaded_unless_asked_for():
    with pytest.raises(CheckpointError, match="download=True"):
        load_text("owner/no-such-model")


def twin(**settings):
    torch.manual_seed(0)
    model = MedVForNextToken(tiny_config(is_causal=True, initializer_range=0.6))
    settings = {"max_new_tokens": LENGTH, **settings}
    return NextTokenResponder(model, tiny_processor(), **settings)


def test_the_twin_answers_pictures_and_counts_its_tokens():
    responder = twin()
    together = responder.answer(QUESTIONS)
    assert together == [responder.answer([question])[0] for question in QUESTIONS]
    model, processor = responder._network, responder._processor
    ids = model.write(**processor(PICTURES[0], TEXTS[0]), max_new_tokens=LENGTH)[0]
    assert said(together)[0] == (processor.decode_answer(ids), len(ids))


def test_the_twin_s_run_follows_its_decoding():
    assert twin().run == twin().run
    assert twin(temperature=0.5).run != twin().run
    with pytest.raises(ValueError, match="temperature -1"):
        twin(temperature=-1)
