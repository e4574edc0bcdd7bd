"""Tests of asking: batches equal single runs, traces replay, runs can be ended early, bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import medv_lab
from medv_lab.config import GenerationSettings
from medv_lab.data.images import ImageError
from medv_lab.decoding.denoising import suppressed_ids
from medv_lab.diffusion.trace import MASK_GLYPH, SampleTrace
from medv_lab.generation import ask, ask_many, generate
from medv_lab.inputs.canvas import read_canvas
from medv_lab.model.processing import MedVProcessor
from tests.model.tiny import tiny_model, tiny_processor, tiny_tokenizer

SETTINGS = GenerationSettings(gen_length=12, block_length=6, steps=12, stop=())
QUESTIONS = ["What?", "Is there a nodule in the left lung?", "Where is it, and how large?", "Yes or no?"] * 2


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


def decided_model(**overrides):
    """Large random weights, so that no two confidences are equal up to rounding."""
    return tiny_model(initializer_range=0.4, **overrides)


@pytest.fixture(scope="module")
def model():
    return decided_model()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_batch_of_eight_gives_the_answers_of_single_runs(model, processor, temperature):
    settings = GenerationSettings(gen_length=12, block_length=6, steps=6, temperature=temperature, seed=3)
    images = [picture(number) if number % 3 else None for number in range(8)]
    together = ask_many(model, processor, images, QUESTIONS, settings, batch_size=8)
    alone = [ask(model, processor, *pair, settings) for pair in zip(images, QUESTIONS, strict=True)]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.trace.position, other.trace.position)
        assert np.array_equal(one.trace.token_id, other.trace.token_id)


def test_batch_with_different_numbers_of_tiles():
    model = decided_model(image_aspect_ratio="anyres_max_4", mm_patch_merge_type="spatial_unpad")
    processor = MedVProcessor.from_config(tiny_tokenizer(), model.config)
    images = [picture(1, 30, 30), picture(2, 130, 40), picture(3, 60, 90)]
    together = ask_many(model, processor, images, QUESTIONS[:3], SETTINGS, batch_size=3)
    alone = [ask(model, processor, *pair, SETTINGS) for pair in zip(images, QUESTIONS[:3], strict=True)]
    assert [answer.trace.replay().tolist() for answer in together] == [
        answer.trace.replay().tolist() for answer in alone
    ]


def test_remainder_batches_keep_the_order(model, processor):
    in_threes = ask_many(model, processor, None, QUESTIONS[:5], SETTINGS, batch_size=3)
    at_once = ask_many(model, processor, None, QUESTIONS[:5], SETTINGS)
    assert [answer.text for answer in in_threes] == [answer.text for answer in at_once]
    assert len(in_threes) == 5


def test_saved_trace_replays_to_the_answer(model, processor, tmp_path):
    answer = ask(model, processor, picture(1), QUESTIONS[1], SETTINGS)
    loaded = SampleTrace.load(answer.trace.save(tmp_path / "trace.npz"))
    assert loaded.text == answer.text == str(answer)
    assert loaded.text == processor.decode_answer(loaded.replay())
    assert loaded.manifest["settings"]["gen_length"] == 12
    assert answer.is_complete


def test_suffix_follows_the_answer_and_counts_in_the_length(model, processor):
    settings = GenerationSettings(gen_length=6, block_length=6, steps=6, suffix=" The end.", stop=())
    answer = ask(model, processor, None, "What?", settings)
    assert answer.text.endswith("The end.")
    room = processor(text="What?")["input_ids"].shape[1] + settings.gen_length
    with pytest.raises(ValueError, match="too long"):
        ask(model, tiny_processor(max_length=room), None, "What?", settings)


def test_manifest_names_settings_and_seed(model, processor):
    answer = ask(model, processor, None, "What?", SETTINGS)
    assert answer.manifest["settings"]["block_length"] == 6
    assert (answer.manifest["seed"], answer.manifest["device"]) == (0, "cpu")
    assert answer.seconds > 0


def test_cancelling_keeps_what_was_committed(model, processor):
    asked = iter([False] * 3 + [True] * 100)
    answers = ask_many(model, processor, None, QUESTIONS, SETTINGS, 4, cancel=lambda: next(asked))
    assert len(answers) == 4
    assert [(answer.is_complete, answer.is_cancelled) for answer in answers] == [(False, True)] * 4
    assert all(answer.trace.forward_evaluations == 3 for answer in answers)


def test_cancelling_at_once_gives_an_empty_answer(model, processor):
    answer = ask(model, processor, None, "What?", SETTINGS, cancel=lambda: True)
    assert (answer.text, answer.is_complete, answer.trace.forward_evaluations) == ("", False, 0)


def test_interrupt_leaves_the_partial_trace(processor):
    model = tiny_model()
    backbone, calls = model.backbone, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return backbone(*arguments, **named)

    model.backbone = interrupted
    answer = ask(model, processor, None, "What?", SETTINGS)
    assert (answer.is_complete, answer.trace.forward_evaluations) == (False, 5)


def test_quick_runs_show_no_bar_and_asked_for_bars_show(model, processor, capsys):
    ask(model, processor, None, "What?", SETTINGS)
    assert "step" not in capsys.readouterr().err
    ask(model, processor, None, "What?", SETTINGS, progress=True)
    assert "12" in capsys.readouterr().err


def test_generate_gives_the_ids_of_the_answer(model, processor):
    answer = ask(model, processor, picture(2), QUESTIONS[1], SETTINGS)
    (ids,) = generate(model, **processor(picture(2), QUESTIONS[1]), settings=SETTINGS)
    assert ids.tolist() == answer.trace.replay().tolist()
    suffixed = replace(SETTINGS, suffix=" The end.", stop=("<|eot_id|>",))
    trace = ask(model, processor, None, "What?", suffixed).trace
    suffix_ids = processor.tokenizer.encode(suffixed.suffix, add_special_tokens=False)
    stop_ids = [[processor.special.end_of_turn]]
    (ids,) = generate(
        model, **processor(text="What?"), settings=suffixed, stop_ids=stop_ids, suffix_ids=suffix_ids
    )
    assert ids.tolist() == [*trace.replay()[: trace.stops[-1]].tolist(), *suffix_ids]


CANVASES = (
    "There is ______ in the left lung.",
    "______ organ is the liver.",
    "Yes, there is __ nodule in it.",
)


def given_in(trace) -> list[int]:
    return trace.replay()[trace.is_given].tolist()


@pytest.mark.parametrize("remasking", ["low_confidence", "wino", "remdm"])
def test_a_canvas_is_filled_and_stays_alone_as_in_a_batch_and_in_a_file(
    model, processor, tmp_path, remasking
):
    mask = model.config.mask_token_id
    settings = GenerationSettings(48, 12, 24, remasking=remasking)
    images = [picture(number) for number in range(4)]
    canvases = [*CANVASES, None]
    together = ask_many(model, processor, images, QUESTIONS[:4], settings, canvases=canvases)
    for number, (answer, canvas) in enumerate(zip(together, canvases, strict=True)):
        trace = SampleTrace.load(answer.trace.save(tmp_path / f"{number}.npz"))
        alone = ask(model, processor, images[number], QUESTIONS[number], settings, canvas=canvas)
        assert trace.replay().tolist() == alone.trace.replay().tolist()
        assert (
            trace.text
            == answer.text
            == alone.text
            == processor.decode_answer(trace.replay()[: trace.stops[-1]])
        )
        if canvas is None:
            assert not trace.is_given.any()
            continue
        ids = read_canvas(canvas, processor.tokenizer)
        assert given_in(trace) == [token for token in ids if token != mask]
        assert all(part.strip() in answer.text for part in canvas.split("_") if part)


def test_without_settings_the_answer_is_as_long_as_the_canvas(model, processor):
    answer = ask(model, processor, None, "What?", canvas=CANVASES[0])
    ids = read_canvas(CANVASES[0], processor.tokenizer)
    assert answer.trace.gen_length == answer.settings.gen_length == answer.settings.block_length == len(ids)
    assert answer.trace.forward_evaluations == 6
    assert answer.trace.text_at(-1, MASK_GLYPH) == CANVASES[0].replace(" _", "_").replace("_", MASK_GLYPH)
    again = ask(model, processor, None, "What?", canvas=answer.trace.text_at(3, MASK_GLYPH))
    assert again.text == answer.text


def test_an_end_that_was_given_ends_the_answer_and_a_full_canvas_is_one(model, processor):
    settings = GenerationSettings(40, 40, 40)
    answer = ask(model, processor, None, "What?", settings, canvas=f"{CANVASES[0]}<|eot_id|>")
    assert answer.text.endswith("in the left lung.")
    assert answer.trace.forward_evaluations == 6
    full = ask(model, processor, None, "What?", settings, canvas="The liver.<|eot_id|>And more")
    assert (full.text, full.trace.forward_evaluations, full.is_complete) == ("The liver.", 0, True)
    cancelled = ask(model, processor, None, "What?", settings, canvas=CANVASES[2], cancel=lambda: True)
    assert cancelled.text == CANVASES[2].replace(" __", "")


def test_bad_canvases_are_refused(model, processor):
    with pytest.raises(ValueError, match="give a gen_length of .* or more"):
        ask(model, processor, None, "What?", SETTINGS, canvas="word " * 40)
    with pytest.raises(ValueError, match="has no gap"):
        ask(model, processor, None, "What?", canvas="The liver")
    with pytest.raises(ValueError, match="give settings"):
        ask_many(model, processor, None, QUESTIONS[:2], canvases=CANVASES[:2])
    with pytest.raises(ValueError, match="2 questions came with 1 canvases"):
        ask_many(model, processor, None, QUESTIONS[:2], canvases=CANVASES[:1])


def test_generate_starts_from_ids(model, processor):
    mask, inputs = model.config.mask_token_id, processor(text="What?")
    start = torch.tensor([[5, mask, 7, mask, mask, 9, mask, mask, mask, mask, mask, mask]])
    (ids,) = generate(model, **inputs, settings=SETTINGS, start_ids=start)
    assert ids[[0, 2, 5]].tolist() == [5, 7, 9] and mask not in ids
    (ids,) = generate(model, **inputs, settings=SETTINGS, start_ids=start, cancel=lambda: True)
    assert ids.tolist() == start[0].tolist()
    full = torch.arange(20, 32)[None]
    (ids,) = generate(model, **inputs, settings=SETTINGS, start_ids=full, stop_ids=[[25, 26]])
    assert ids.tolist() == full[0, :5].tolist()
    with pytest.raises(ValueError, match="give ids from 0"):
        generate(model, **inputs, settings=SETTINGS, start_ids=start + 10**6)


def test_suppression_by_default_and_by_hand(model):
    config = model.config
    special = {
        config.bos_token_id,
        config.eos_token_id,
        config.start_header_token_id,
        config.end_header_token_id,
    }
    assert set(suppressed_ids(model, GenerationSettings())) == special
    assert suppressed_ids(model, GenerationSettings(suppressed_tokens=(5,))) == (5,)
    ids = torch.arange(10, 14)[None]
    everything = tuple(token for token in range(config.vocab_size) if token != 7)
    (forced,) = generate(model, ids, GenerationSettings(4, 4, 4, suppressed_tokens=everything))
    assert forced.tolist() == [7] * 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None, ""), ValueError),
        ((b"junk", "What?"), ImageError),
        ((None, "why " * 600), ValueError),
    ],
)
def test_bad_questions_and_pictures_are_refused(model, processor, arguments, error):
    with pytest.raises(error):
        ask(model, processor, *arguments, SETTINGS)


def test_bad_batches_are_refused(model, processor):
    with pytest.raises(ValueError, match="give 1 or more"):
        ask_many(model, processor, None, QUESTIONS, SETTINGS, batch_size=0)
    with pytest.raises(ValueError, match="8 questions came with 1 images"):
        ask_many(model, processor, [None], QUESTIONS, SETTINGS)
    assert ask_many(model, processor, None, [], SETTINGS) == []


def test_public_names_are_there():
    assert medv_lab.ask is ask
    assert all(getattr(medv_lab, name) is not None for name in medv_lab.__all__)


CONTROL = [
    "Is <|mdm_mask|> shown?",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    "<|startoftext|>What?",
]


@pytest.mark.parametrize("question", CONTROL)
def test_case_2_special_tokens_in_a_question_are_text(model, processor, question):
    answer = ask(model, processor, None, question, SETTINGS)
    assert answer.is_complete and answer.notes == () and answer.trace.position.min() >= 0


def test_case_2_as_the_reference_does_the_masks_of_a_question_are_filled_and_noted(model):
    answer = ask(
        model, tiny_processor(parse_control_tokens=True), None, CONTROL[0], replace(SETTINGS, stop=())
    )
    assert "holds 1 mask token" in answer.notes[0]
    assert answer.is_complete is (answer.trace.masks_left == 0)
    assert not answer.is_cancelled


def test_case_12_a_mask_that_the_model_chooses_is_marked_and_leaves_the_answer_incomplete(model, processor):
    others = tuple(token for token in range(len(processor.tokenizer)) if token != processor.special.mask)
    answer = ask(model, processor, None, "What?", replace(SETTINGS, suppressed_tokens=others))
    assert (answer.text, answer.is_complete, answer.is_cancelled) == ("", False, False)
    assert answer.trace.masks_left == SETTINGS.gen_length and answer.trace.predicted_masks.all()
    assert answer.trace.to_frame().is_mask.all()
    assert [note.split(" in ")[0] for note in answer.notes] == [
        "The model chose the mask itself",
        f"{SETTINGS.gen_length} positions of the answer are masked still.",
    ]


def test_notes_of_pictures_come_with_their_answer(model, processor):
    flat, deep = np.full((32, 32), 9, np.uint8), np.arange(1024, dtype=np.uint16).reshape(32, 32)
    answers = ask_many(
        model, processor, [flat, None, [picture(1), deep]], [*QUESTIONS[:2], "Compare."], SETTINGS
    )
    assert "one grey (9 of 255)" in answers[0].notes[0]
    assert answers[1].notes == ()
    assert answers[2].notes[0].startswith("Picture 2: No window was given")
