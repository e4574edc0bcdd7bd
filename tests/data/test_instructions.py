"""Instruction files as dialogues: what the published loader takes, and what no loader should."""

import pytest

from medv_lab.data.instructions import find_faults, from_question, read_dialogues
from medv_lab.data.validation import check_instructions
from medv_lab.data.vqa import read_vqa
from medv_lab.inputs.prompts import IMAGE_PLACEHOLDER, encode_dialogue
from tests.data.released import make_vqa_rad, real_folders, write_json, write_lines
from tests.parity.golden import load_json


class Characters:
    """A tokenizer of single characters, with the special tokens as ids of their own."""

    unk_token_id = None

    def convert_tokens_to_ids(self, name):
        return 1_000_000 + sum(map(ord, name))

    def encode(self, text, add_special_tokens):
        return [ord(character) for character in text]


def row_of(*values, image="a.png", **more) -> dict:
    roles = ["human", "gpt"] * len(values)
    messages = [{"from": role, "value": value} for role, value in zip(roles, values, strict=False)]
    return {"id": "x", "image": image, "conversations": messages} | more


SINGLE = row_of("<image>\nWhat?", "A lung.")
MULTI = row_of("What is it? <image>", "A lung.", "Which?", "The left.")
TEXT_ONLY = {"conversations": row_of("What?", "A lung.")["conversations"]}
TWO_IMAGES = row_of("<image> or <image>?", "The first.", image=["a.png", "b.png"])
MISSPELT = {"id": 5, "image": "a.png", "conversatons": SINGLE["conversations"]}
WHOLE = [SINGLE, MULTI, TEXT_ONLY, TWO_IMAGES, MISSPELT]


@pytest.mark.parametrize("write", [write_json, write_lines])
def test_whole_rows_are_dialogues_that_can_be_encoded(tmp_path, write):
    dialogues = list(read_dialogues(write(tmp_path / "x.json", WHOLE)))
    assert [len(dialogue.turns) for dialogue in dialogues] == [2, 4, 2, 2, 2]
    assert [dialogue.images for dialogue in dialogues] == [
        ("a.png",),
        ("a.png",),
        (),
        ("a.png", "b.png"),
        ("a.png",),
    ]
    assert [dialogue.id for dialogue in dialogues] == ["x", "x", "", "x", "5"]
    for dialogue in dialogues:
        encoded = encode_dialogue(dialogue.turns, Characters(), has_image=bool(dialogue.images))
        assert encoded.input_ids.count(IMAGE_PLACEHOLDER) == len(dialogue.images)


def test_the_recorded_dialogues_of_the_reference_are_read_unchanged(tmp_path):
    """All but those that training takes only in part: a leading answer it skips, an empty one it learns nothing of."""
    recorded = load_json("text")["training_samples"]
    kinds = {}
    for sample in recorded:
        image = {} if not sample["has_image"] else {"image": "a.png"}
        if sample["case"] == "two_images_not_moved":
            image = {"image": ["a.png", "b.png"]}
        row = {"conversations": sample["conversations"], **image}
        faults = find_faults(row)
        if faults:
            kinds[sample["case"]] = [fault.kind for fault in faults]
            continue
        (dialogue,) = read_dialogues(write_json(tmp_path / "x.json", [row]))
        assert list(dialogue.turns) == [(one["from"], one["value"]) for one in sample["conversations"]]
    assert kinds == {
        "first_message_from_gpt_is_skipped": ["no question first"],
        "empty_answer": ["empty answer"],
    }


def test_a_broken_row_is_an_error_that_names_it(tmp_path):
    path = write_json(tmp_path / "x.json", [SINGLE, row_of("<image>", ""), MULTI])
    with pytest.raises(ValueError, match=r"row 2 \(id x\): empty answer.*medv data check"):
        list(read_dialogues(path))


def test_reading_is_lazy(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [SINGLE, 3])
    dialogues = read_dialogues(path)
    assert next(dialogues).turns[1] == ("gpt", "A lung.")
    with pytest.raises(ValueError, match="not an object"):
        next(dialogues)


@pytest.mark.parametrize("real", [None, *real_folders("vqa_rad")], ids=lambda f: "real" if f else "made")
def test_a_training_split_becomes_dialogues_without_a_broken_row(tmp_path, real):
    folder = real or make_vqa_rad(tmp_path)
    images = folder / "VQA_RAD Image Folder"
    questions = [one for one in read_vqa("vqa-rad", folder).questions if one.split == "train"]
    dialogues = [from_question(one, images) for one in questions]
    rows = [
        {
            "id": dialogue.id,
            "image": dialogue.images[0],
            "conversations": [{"from": role, "value": text} for role, text in dialogue.turns],
        }
        for dialogue in dialogues
    ]
    path = write_lines(tmp_path / "train.jsonl", rows)
    report = check_instructions(path, images)
    assert report.damages == ()
    assert (report.rows, report.images) == ((1797, 313) if real else (3, 2))
    assert list(read_dialogues(path)) == dialogues
    for question, dialogue in zip(questions, dialogues, strict=True):
        assert dialogue.turns == (("human", f"<image>\n{question.text}"), ("gpt", question.reference))
        assert (images / dialogue.images[0]) == question.image


def test_a_picture_outside_the_folder_cannot_be_named(tmp_path):
    question = read_vqa("vqa-rad", make_vqa_rad(tmp_path)).questions[0]
    with pytest.raises(ValueError, match="elsewhere"):
        from_question(question, tmp_path / "elsewhere")
