"""Committed counterparts of Tables 1 to 3: they follow from their answers, and say whose they are."""

from pathlib import Path

import pytest

from medv_lab.model.checkpoint_files import embedded_folder
from medv_lab.runtime import hash_model
from medv_lab.studies.tables import SYSTEMS, frame_texts, read_run, read_table

FOLDER = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_scores_and_differences_follow_from_the_answers(number):
    folder = FOLDER / f"table{number}"
    answers, manifest = read_table(folder)
    assert manifest["table"] == number
    for name, text in frame_texts(number, read_run(manifest), answers).items():
        assert (folder / name).read_text() == text


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_row_names_its_model_and_no_row_is_missing_unsaid(number):
    answers, manifest = read_table(FOLDER / f"table{number}")
    names = {system["system"] for system in manifest["systems"]}
    assert names == {one.system for one in answers}
    expected = set(SYSTEMS) if number < 3 else {"diffusion", "ours", "twin"}
    assert names == expected - set(manifest["missing"])
    hashes = {system["system"]: system["model"]["sha256"] for system in manifest["systems"]}
    assert all(len(found) == 64 for found in hashes.values())
    assert hashes["diffusion"] == hash_model(embedded_folder())
