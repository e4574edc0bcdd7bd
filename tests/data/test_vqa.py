"""Readers of VQA data sets: made folders in every layout always, the real releases where they are."""

from dataclasses import replace

import pytest

from medv_lab.data.vqa import READERS, count_questions, read_vqa, tell_dataset
from medv_lab.paper.published import load_table
from tests.data.released import (
    make_pathvqa,
    make_plain_pathvqa,
    make_slake,
    make_vqa_rad,
    real_folders,
    write_json,
)

PUBLISHED_NAMES = {"vqa-rad": "VQA-RAD", "slake": "SLAKE", "pathvqa": "PathVQA"}
COUNTS = ["images", "question_answer_pairs", "closed_form", "open_form"]
MADE = {"vqa-rad": make_vqa_rad, "slake": make_slake, "pathvqa": make_pathvqa}
MADE_COUNTS = {
    "vqa-rad": {"train": [2, 3, 1, 2], "test": [1, 2, 1, 1]},
    "slake": {"train": [1, 1, 1, 0], "validation": [1, 1, 0, 1], "test": [1, 1, 1, 0]},
    "pathvqa": {"test": [1, 2, 1, 1]},
}


def published_counts(dataset: str) -> dict[str, list[int]]:
    table = load_table(8).replace({"split": {"val": "validation"}})
    own = table[table.dataset == PUBLISHED_NAMES[dataset]].set_index("split")
    return {split: own.loc[split, COUNTS].tolist() for split in own.index}


def sources():
    """(data set, real folder or None for a made one)."""
    for dataset in READERS:
        yield pytest.param(dataset, None, id=f"{dataset}-made")
        for folder in real_folders(dataset.replace("-", "_")):
            yield pytest.param(dataset, folder, id=f"{dataset}-real")


@pytest.mark.parametrize(("dataset", "real"), list(sources()))
def test_the_counts_are_those_of_the_paper(dataset, real, tmp_path):
    folder = real or MADE[dataset](tmp_path)
    expected = published_counts(dataset) if real else MADE_COUNTS[dataset]
    reading = read_vqa(dataset, folder, need_images=real is None or dataset == "vqa-rad")
    assert reading.broken == ()
    english = [one for one in reading.questions if one.tags["language"] == "en"]
    found = {
        row.split: [getattr(row, name) for name in COUNTS] for row in count_questions(english).itertuples()
    }
    assert found
    assert found == {split: expected[split] for split in found}
    if dataset == "vqa-rad" or real is None:
        assert found == expected
    for one in reading.questions:
        assert one.tags["dataset"] == dataset
        assert one.text == one.text.strip() != ""
        assert one.reference == one.reference.strip() != ""
    assert len({(one.split, one.id) for one in reading.questions}) == len(reading.questions)


@pytest.mark.parametrize("dataset", READERS)
def test_an_empty_folder_is_refused(dataset, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_vqa(dataset, tmp_path)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vqa-rad, slake, pathvqa"):
        read_vqa("vqav2", tmp_path)


def test_counts_tell_pictures_from_questions(tmp_path):
    questions = read_vqa("vqa-rad", make_vqa_rad(tmp_path)).questions
    moved = [replace(one, image=questions[0].image) for one in questions]
    assert count_questions(moved).images.tolist() == [1, 1]
    assert count_questions(moved).question_answer_pairs.tolist() == [3, 2]


def test_a_folder_says_which_data_set_it_holds(tmp_path):
    made = {
        "vqa-rad": [make_vqa_rad(tmp_path / "rad")],
        "slake": [make_slake(tmp_path / "slake")],
        "pathvqa": [make_pathvqa(tmp_path / "path"), make_plain_pathvqa(tmp_path / "plain")],
    }
    assert all(tell_dataset(folder) == name for name, folders in made.items() for folder in folders)
    other = write_json(tmp_path / "other" / "benchmark_qa.json", []).parent
    with pytest.raises(ValueError, match="vqa-rad, slake, pathvqa"):
        tell_dataset(other)
