"""Readers of VQA data sets: made folders in every layout always, the real releases where they are."""

import warnings
from dataclasses import replace

import pytest

from medv_lab.data.vqa import READERS, count_records, read_vqa
from medv_lab.data.vqa_records import text_of
from medv_lab.paper.published import load_table
from tests.data.released import (
    PATHVQA_ROWS,
    make_pathvqa,
    make_plain_pathvqa,
    make_slake,
    make_vqa_rad,
    real_folders,
    slake_row,
    vqa_rad_row,
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
    english = [record for record in reading.records if record.language == "en"]
    found = {
        row.split: [getattr(row, name) for name in COUNTS] for row in count_records(english).itertuples()
    }
    assert found
    assert found == {split: expected[split] for split in found}
    if dataset == "vqa-rad" or real is None:
        assert found == expected
    for record in reading.records:
        assert record.dataset == dataset
        assert record.question == record.question.strip() != ""
        assert record.answer == record.answer.strip() != ""
    assert len({(record.split, record.id) for record in reading.records}) == len(reading.records)


def test_the_quirks_of_vqa_rad_are_read(tmp_path):
    records = read_vqa("vqa-rad", make_vqa_rad(tmp_path)).records
    assert [record.id for record in records] == ["0", "1", "2", "3", "4"]
    assert [record.is_closed for record in records] == [True, True, False, False, False]
    assert [record.answer for record in records[2:4]] == ["4", "superficial"]
    assert [record.organ for record in records[:3]] == ["chest", "head", "abdomen"]
    assert {record.modality for record in records} == {None}
    assert all(record.image.is_file() for record in records)


def test_slake_keeps_languages_organs_and_modalities(tmp_path):
    records = read_vqa("slake", make_slake(tmp_path)).records
    chinese = [record for record in records if record.language == "zh"]
    assert [record.answer for record in chinese] == ["有"]
    assert {(record.organ, record.modality) for record in records} == {("Lung", "CT")}


def test_both_layouts_of_pathvqa_are_read(tmp_path):
    lxmert = read_vqa("pathvqa", make_pathvqa(tmp_path / "a")).records
    plain = read_vqa("pathvqa", make_plain_pathvqa(tmp_path / "b")).records
    assert [(record.id, record.answer, record.is_closed) for record in lxmert] == [
        ("test_0001-0", "squamous cell carcinoma", False),
        ("test_0001-1", "no", True),
    ]
    assert {record.split for record in plain} == {"validation"}
    assert [record.is_closed for record in plain] == [False, True]
    assert all(record.image.is_file() for record in (*lxmert, *plain))


def test_pickles_are_named_and_never_opened(tmp_path):
    marker = tmp_path / "opened"
    (tmp_path / "qas").mkdir()
    pickled = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    (tmp_path / "qas" / "train_qa.pkl").write_bytes(pickled)
    with pytest.raises(FileNotFoundError, match=r"train_qa\.pkl, but pickles are never opened"):
        read_vqa("pathvqa", tmp_path)
    assert not marker.exists()


BROKEN_VQA_RAD = [
    (vqa_rad_row(9, image_name="absent.jpg"), "missing image"),
    (vqa_rad_row(9, image_name="../VQA_RAD Dataset Public.json"), "image outside the folder"),
    (vqa_rad_row(9, image_name="x" * 5000), "missing image"),
    (vqa_rad_row(9, answer=""), "empty answer"),
    (vqa_rad_row(9, question="  "), "empty question"),
    (vqa_rad_row(9, answer=True), "wrong type"),
    (vqa_rad_row(9, answer=None), "wrong type"),
    (vqa_rad_row(9, answer_type="HALF"), "unknown answer_type"),
    (vqa_rad_row(9, phrase_type="dev"), "unknown phrase_type"),
    (vqa_rad_row(9, image_organ="FOOT"), "unknown image_organ"),
    (vqa_rad_row(0), "duplicate id"),
    ({"qid": 9}, "missing field"),
    ([1, 2], "not an object"),
]


@pytest.mark.parametrize(("row", "kind"), BROKEN_VQA_RAD, ids=[kind for _, kind in BROKEN_VQA_RAD])
def test_a_broken_row_is_reported_and_the_others_are_read(tmp_path, row, kind):
    folder = make_vqa_rad(tmp_path, [vqa_rad_row(0), row, vqa_rad_row(2)])
    with pytest.warns(UserWarning, match="1 of the rows are broken"):
        reading = read_vqa("vqa-rad", folder)
    assert [record.id for record in reading.records] == ["0", "2"]
    assert [(one.row, one.kind) for one in reading.broken] == [(2, kind)]


def test_texts_alone_need_no_images(tmp_path):
    folder = make_vqa_rad(tmp_path, [vqa_rad_row(0, image_name="absent.jpg")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_vqa("vqa-rad", folder, need_images=False).records) == 1


def test_broken_questions_of_pathvqa_leave_the_others_of_their_picture(tmp_path):
    unequal = {"img_id": "test_0003", "sentf": {"pvqa": ["What?"]}, "labelf": {"pvqa": []}}
    no_list = {"img_id": "test_0004", "sentf": {"pvqa": "What?"}, "labelf": {"pvqa": []}}
    two_answers = {
        "img_id": "test_0001",
        "sentf": {"pvqa": ["What?", "Is it?"]},
        "labelf": {"pvqa": [{"a": 1, "b": 1}, {"no": 1}]},
    }
    folder = make_pathvqa(tmp_path, [unequal, no_list, two_answers, *PATHVQA_ROWS[:1]])
    with pytest.warns(UserWarning, match="3 of the rows"):
        reading = read_vqa("pathvqa", folder)
    assert [record.id for record in reading.records] == ["test_0001-1"]
    assert [(one.row, one.kind) for one in reading.broken] == [
        (1, "unequal lists"),
        (2, "wrong type"),
        (3, "wrong type"),
    ]


def test_a_damaged_split_of_slake_leaves_the_others(tmp_path):
    folder = make_slake(tmp_path)
    write_json(folder / "train.json", [slake_row(1, q_lang="fr")])
    with pytest.warns(UserWarning, match="unknown q_lang"):
        reading = read_vqa("slake", folder)
    assert {record.split for record in reading.records} == {"validation", "test"}


@pytest.mark.parametrize("dataset", READERS)
def test_an_empty_folder_is_refused(dataset, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_vqa(dataset, tmp_path)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vqa-rad, slake, pathvqa"):
        read_vqa("vqav2", tmp_path)


def test_counts_tell_pictures_from_questions(tmp_path):
    records = read_vqa("vqa-rad", make_vqa_rad(tmp_path)).records
    moved = [replace(record, image=records[0].image) for record in records]
    assert count_records(moved).images.tolist() == [1, 1]
    assert count_records(moved).question_answer_pairs.tolist() == [3, 2]


def test_numbers_are_texts_and_truth_values_are_not():
    assert text_of({"a": 4}, "a") == "4"
    with pytest.raises(ValueError, match="wrong type"):
        text_of({"a": False}, "a")
