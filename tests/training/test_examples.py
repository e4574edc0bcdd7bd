"""Dialogues as ids and labels: every answer is learned, nothing else is, and a header never changes its ids."""

import numpy as np
import pytest
import torch
from PIL import Image

from medv_lab.data.instructions import Dialogue
from medv_lab.inputs.prompts import IGNORED_LABEL, IMAGE_PLACEHOLDER, encode_dialogue, special_ids
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.questions import balanced_questions
from medv_lab.phantoms.reports import sample_texts
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.training.embedded import make_tokenizer
from medv_lab.training.examples import (
    CANVAS,
    FILL,
    Collator,
    DialogueDataset,
    Example,
    PictureCollator,
    dialogue_examples,
    encode_example,
    encode_examples,
    fact_examples,
    report_examples,
    without_images,
)
from tests.model.tiny import tiny_processor

SCENES = make_scenes("train", 30)
DIALOGUE = Dialogue("1", ("a.png",), (("human", "<image>\nWhat is it?"), ("gpt", "A nodule.")))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(sample_texts(SCENES, 0) + ["user", "assistant", "\n\n"] * 50)


def test_any_text_comes_back(tokenizer):
    for text in ("Is there a nodule?", "line\n\nbreaks\n", "ünïcode 肺 \x00"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_header_has_the_same_ids_whatever_follows(tokenizer):
    header = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    alone = tokenizer.encode(header, add_special_tokens=False)
    for text in ("yes", "A chest", " spaced", "<|eot_id|>", "7"):
        assert tokenizer.encode(header + text, add_special_tokens=False)[: len(alone)] == alone


@pytest.mark.parametrize("examples", [report_examples("detailed", SCENES, 0), dialogue_examples(SCENES, 0)])
def test_exactly_the_answers_are_learned(tokenizer, examples):
    end = special_ids(tokenizer).end_of_turn
    for example in (*examples, *without_images(examples)):
        ids, labels = encode_example(example, tokenizer)
        learned = [token for token in labels if token != IGNORED_LABEL]
        assert tokenizer.decode(learned) == "".join(f"{answer}<|eot_id|>" for _, answer in example.turns)
        assert all(label in (IGNORED_LABEL, token) for token, label in zip(ids, labels, strict=True))
        assert ids.count(IMAGE_PLACEHOLDER) == (example.scene is not None)
        assert learned.count(end) == len(example.turns)


def test_answers_that_are_not_found_are_an_error(tokenizer, monkeypatch):
    example = Example([("Is there a nodule?", "yes")], None)
    encode = tokenizer.encode
    monkeypatch.setattr(
        tokenizer,
        "encode",
        lambda text, **kw: encode(text, **kw)[: -1 if text.endswith("\n\n") else None][::-1],
    )
    with pytest.raises(ValueError, match="0 of 1 answers were found"):
        encode_example(example, tokenizer)


def count_fill(examples: list[Example], tokenizer) -> list[int]:
    items = encode_examples(examples, tokenizer, seed=0)
    extra = []
    for item, example in zip(items, examples, strict=True):
        plain = len(encode_example(example, tokenizer)[0])
        extra.append(len(item["input_ids"]) - plain)
        assert item["input_ids"][plain:] == item["labels"][plain:] == [tokenizer.eos_token_id] * extra[-1]
    return extra


def test_the_fill_behind_a_short_answer_is_short_and_behind_a_report_up_to_a_canvas(tokenizer):
    assert set(count_fill([Example([("Is there a nodule?", "yes")], None)] * 300, tokenizer)) == set(
        range(FILL + 1)
    )
    reports = [one for seed in range(20) for one in report_examples("detailed", SCENES, seed)]
    lengths = [len(tokenizer.encode(example.turns[0][1])) + 1 for example in reports]
    canvases = np.add(lengths, count_fill(reports, tokenizer))
    assert max(canvases) == CANVAS
    # the number of masks says little of the length: in full canvases reports are as long as in all
    assert abs(np.mean(np.array(lengths)[canvases > 96]) - np.mean(lengths)) < 3


def test_a_question_about_facts_gives_them_as_text(tokenizer):
    draws = balanced_questions(SCENES, 1, 0)
    for draw, example in zip(draws, fact_examples(draws, SCENES, 0), strict=True):
        ((question, answer),) = example.turns
        report, _, asked = question.rpartition(draw.text)
        assert asked == "" and answer == draw.answer and example.scene is None
        assert score_facts(report, SCENES[draw.scene]).f1 == 1


def test_padding_is_neither_seen_nor_learned(tokenizer):
    examples = [Example([("Is there a nodule?", answer)], 0) for answer in ("yes", "no, none at all")]
    features = np.zeros((1, 36, 4), np.float32)
    batch = Collator(tokenizer.eos_token_id, torch.from_numpy(features))(
        encode_examples(examples, tokenizer, seed=0)
    )
    hidden = batch["attention_mask"] == 0
    assert hidden.any()
    assert (batch["labels"][hidden] == IGNORED_LABEL).all()
    assert batch["vision_features"].shape == (2, 36, 4)


def test_dialogues_are_encoded_and_collated_as_published(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    processor = tiny_processor(system_prompt="")
    dataset = DialogueDataset([DIALOGUE, Dialogue("2", (), (("human", "Hi?"), ("gpt", "Yes.")))], processor)
    first, second = dataset[0], dataset[1]
    expected = encode_dialogue(DIALOGUE.turns, processor.tokenizer, has_image=True, system_prompt="")
    assert (first["input_ids"], first["labels"]) == (expected.input_ids, expected.labels)
    batch = PictureCollator(processor, tmp_path)([first, second])
    assert batch["input_ids"].shape == batch["labels"].shape
    assert batch["labels"][1, len(second["labels"]) :].eq(processor.special.end_of_text).all()
    assert [layout.image_size for layout in batch["tile_layouts"]] == [(60, 40)]
    assert torch.equal(
        batch["pixel_values"][0], processor(Image.open(tmp_path / "a.png"), "?")["pixel_values"][0]
    )


def test_in_alignment_a_caption_follows_its_picture():
    processor = tiny_processor()
    item = DialogueDataset([DIALOGUE], processor, is_alignment=True)[0]
    caption = processor.tokenizer.encode("A nodule.\n", add_special_tokens=False)
    assert item["input_ids"] == [IMAGE_PLACEHOLDER, *caption]
    assert item["labels"] == [IGNORED_LABEL, *caption]
