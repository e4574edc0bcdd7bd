"""A stage on real data: released layouts are read, encoded as published, and trained from the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from medv_lab.training.dialogue_runs import DialogueDataset, PictureCollator, read_training_data
from PIL import Image
from typer.testing import CliRunner

from medv_lab.cli.main import app
from medv_lab.data.instructions import Dialogue
from medv_lab.model.prompts import IGNORED_LABEL, IMAGE_PLACEHOLDER, encode_dialogue
from medv_lab.training.recipes import find_recipe
from tests.data.released import make_slake, make_vqa_rad, real_folders, vqa_rad_row, write_json
from tests.model.tiny import save_tiny, tiny_processor

DIALOGUE = Dialogue("1", ("a.png",), (("human", "<image>\nWhat is it?"), ("gpt", "A nodule.")))
STEPS = ("--set", "steps=2", "--set", "batch_size=2", "--save-steps", "1", "--log-steps", "1")


@pytest.fixture
def start(tmp_path):
    save_tiny(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_training_questions_alone_become_dialogues(tmp_path):
    dialogues = read_training_data(make_vqa_rad(tmp_path), "vqa-rad")
    assert [dialogue.id for dialogue in dialogues] == ["0", "2", "3"]
    assert dialogues[1].turns == (("human", "<image>\nIs there a nodule 2?"), ("gpt", "4"))
    assert len(read_training_data(make_slake(tmp_path), "slake")) == 1  # the Chinese question is left out


@pytest.mark.parametrize("folder", real_folders("vqa_rad"), ids=str)
def test_the_release_of_vqa_rad_gives_the_paper_s_number_of_dialogues(folder):
    assert len(read_training_data(folder, "vqa-rad")) == find_recipe("full", "vqa-rad").samples == 1797


def test_broken_rows_and_absent_splits_are_refused(tmp_path):
    rows = [vqa_rad_row(1, answer="")]
    with pytest.raises(ValueError, match="1 broken rows, the first is row 1"), pytest.warns(UserWarning):
        read_training_data(make_vqa_rad(tmp_path, rows), "vqa-rad")
    rows = [vqa_rad_row(1, phrase_type="test_para")]
    with pytest.raises(ValueError, match="no training split of vqa-rad"):
        read_training_data(make_vqa_rad(tmp_path, rows), "vqa-rad")


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


def test_the_command_trains_on_a_release(tmp_path, start):
    folder = make_vqa_rad(tmp_path / "rad")
    done = run("--stage", "vqa", "--data", folder, "--dataset", "vqa-rad", "--model", start, *STEPS,
               "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 dialogues in rad" in done.output
    losses = pd.read_csv(tmp_path / "out" / "losses.csv")
    assert losses.loss.notna().tolist() == [True, True]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["settings"]["data"], manifest["settings"]["dialogues"]) == ("rad", 3)


def test_the_command_trains_on_an_instruction_file_by_the_published_recipe(tmp_path, start):
    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": "A grey square."}]
    file = write_json(tmp_path / "rows.json", [{"id": "1", "image": "a.png", "conversations": turns}] * 2)
    done = run("--stage", "alignment", "--preset", "full", "--data", file, "--images", tmp_path, "--model", start,
               *STEPS, "--set", "epochs=none", "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    recipe = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["recipe"]
    assert (recipe["projector_lr"], recipe["language_tower_lr"]) == (1e-3, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "vqa", "--data", "x"), "--dataset for a VQA release"),
        (("--stage", "vqa", "--preset", "full"), "the full one takes --data"),
        (("--stage", "vqa", "--data", "x", "--dataset", "vqa"), "vqa-rad, slake, pathvqa"),
        (("--stage", "dpo", "--data", "x", "--dataset", "slake"), "no stage 'dpo'"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, arguments, message):
    done = run(*arguments, "--output", tmp_path / "out")
    assert done.exit_code != 0
    assert message in " ".join(done.output.split())
