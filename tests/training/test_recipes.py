"""The recipes are Table 6, can be varied, and refuse what makes no sense."""

from dataclasses import FrozenInstanceError, replace

import pandas as pd
import pytest

from medv_lab.paper.published import load_table
from medv_lab.training.recipes import EMBEDDED, PUBLISHED, LoRA, Recipe, tabulate_recipes, vary

COLUMNS = {
    "alignment": "alignment",
    "instruct": "md_sft",
    "vqa-rad": "sd_sft_vqa_rad",
    "slake": "sd_sft_slake",
    "pathvqa": "sd_sft_pathvqa",
}
ROWS = {
    "global_batch_size": "batch_size",
    "model_max_length": "max_length",
    "training_samples": "samples",
    "epochs": "epochs",
    "vision_tower_lr": "vision_tower_lr",
    "projector_lr": "projector_lr",
    "language_tower_lr": "language_model_lr",
}
ABOUT_THE_MODEL = {"vision_tower", "language_tower", "projector", "attention"}
IN_WORDS = {"scheduler": "cosine with 3% warmup", "optimizer": "AdamW", "deepspeed": "ZeRO-3"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_recipes_are_table_6(name):
    column = load_table(6).set_index("setting")[COLUMNS[name]]
    assert set(column.index) == ROWS.keys() | ABOUT_THE_MODEL | IN_WORDS.keys()
    for row, field in ROWS.items():
        published = None if pd.isna(column[row]) else float(column[row])
        assert getattr(PUBLISHED[name], field) == published, row
    assert {row: column[row] for row in IN_WORDS} == IN_WORDS
    assert (PUBLISHED[name].schedule, PUBLISHED[name].warmup) == ("cosine", 0.03)


def test_the_steps_follow_from_epochs_and_dialogues():
    assert PUBLISHED["alignment"].count_steps() == 2 * 18_750
    assert PUBLISHED["vqa-rad"].count_steps() == 2 * 225  # 1797 / 8, the last batch not full
    assert EMBEDDED["vqa"].count_steps(10) == EMBEDDED["vqa"].steps  # whatever the number of dialogues
    with pytest.raises(ValueError, match="number of dialogues"):
        replace(PUBLISHED["slake"], samples=None).count_steps()


@pytest.mark.parametrize("recipes", [PUBLISHED, EMBEDDED])
def test_the_vision_tower_is_frozen_throughout_and_alignment_trains_the_projector_alone(recipes):
    assert all(recipe.vision_tower_lr is None for recipe in recipes.values())
    assert recipes["alignment"].parts == ("projector",)
    assert recipes["instruct"].parts == ("projector", "language_model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector_lr": None}, "every part is frozen"),
        ({"steps": 3}, "give one of them"),
        ({"epochs": None}, "give one of them"),
        ({"precision": "fp16"}, "bf16, fp32"),
        ({"levels": "sorted"}, "uniform, stratified"),
        ({"levels": "stratified", "t_min": 1.0}, "0 to below 1"),
        ({"t_min": 0.1}, "0 with uniform"),
        ({"lora": LoRA()}, "backbone, which is frozen"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PUBLISHED["alignment"], **changes)


def test_a_recipe_is_frozen_and_prints_itself_as_a_table():
    recipe = Recipe("mine", projector_lr=1e-4, steps=7)
    with pytest.raises(FrozenInstanceError):
        recipe.steps = 8
    lines = dict(line.split(None, 1) for line in str(recipe).splitlines() if len(line.split()) > 1)
    assert lines["projector_lr"] == "0.0001"
    assert lines["vision_tower_lr"] == "frozen"
    assert lines["muon_lr"] == "-"
    assert lines["steps"] == "7"


def test_several_recipes_stand_side_by_side():
    table = tabulate_recipes(PUBLISHED)
    assert list(table.columns) == list(PUBLISHED)
    assert table.loc["language_model_lr"].tolist() == ["frozen", "1e-05", "2e-06", "2e-06", "2e-06"]


def test_changes_can_be_written_as_text():
    changes = [
        "epochs=none",
        "steps=7",
        "projector_lr=2e-3",
        "group_by_length=false",
        "precision=fp32",
        "muon_lr=6e-3",
    ]
    recipe = vary(PUBLISHED["instruct"], [*changes, "lora=4"])
    wanted = {"epochs": None, "steps": 7, "projector_lr": 2e-3, "group_by_length": False, "precision": "fp32"}
    wanted |= {"muon_lr": 6e-3}
    assert recipe == replace(PUBLISHED["instruct"], **wanted, lora=LoRA(rank=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stepps=3", "settings are vision_tower_lr"),
        ("steps", "no value of steps"),
        ("steps=many", "no value of steps"),
        ("batch_size=none", "no value of batch_size"),
        ("group_by_length=1", "no value of group_by_length"),
        ("precision=fp8", "bf16, fp32"),
    ],
)
def test_changes_that_cannot_be_read_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        vary(EMBEDDED["vqa"], [change])
