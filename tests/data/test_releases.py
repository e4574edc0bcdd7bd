"""The released layouts: their quirks are read without loss, and what is broken is named."""

import warnings

import pytest

from medv_lab.data.vqa import read_vqa
from tests.data.released import (
    PATHVQA_ROWS,
    make_pathvqa,
    make_plain_pathvqa,
    make_slake,
    make_vqa_rad,
    slake_row,
    vqa_rad_row,
    write_json,
)


def test_the_quirks_of_vqa_rad_are_read(tmp_path):
    questions = read_vqa("vqa-rad", make_vqa_rad(tmp_path)).questions
    assert [one.id for one in questions] == ["0", "1", "2", "3", "4"]
    assert [one.is_closed for one in questions] == [True, True, False, False, False]
    assert [one.split for one in questions] == ["train", "test", "train", "train", "test"]
    assert [one.reference for one in questions[2:4]] == ["4", "superficial"]
    assert [one.tags["organ"] for one in questions[:3]] == ["chest", "head", "abdomen"]
    assert not any("modality" in one.tags for one in questions)
    assert all(one.image.is_file() for one in questions)


def test_slake_keeps_languages_organs_and_modalities(tmp_path):
    questions = read_vqa("slake", make_slake(tmp_path)).questions
    chinese = [one for one in questions if one.tags["language"] == "zh"]
    assert [one.reference for one in chinese] == ["有"]
    assert {(one.tags["organ"], one.tags["modality"]) for one in questions} == {("Lung", "CT")}


def test_both_layouts_of_pathvqa_are_read(tmp_path):
    lxmert = read_vqa("pathvqa", make_pathvqa(tmp_path / "a")).questions
    plain = read_vqa("pathvqa", make_plain_pathvqa(tmp_path / "b")).questions
    assert [(one.id, one.reference, one.kind) for one in lxmert] == [
        ("test_0001-0", "squamous cell carcinoma", "open"),
        ("test_0001-1", "no", "closed"),
    ]
    assert {one.split for one in plain} == {"validation"}
    assert [one.kind for one in plain] == ["open", "closed"]
    assert all(one.image.is_file() for one in (*lxmert, *plain))


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
    assert [one.id for one in reading.questions] == ["0", "2"]
    assert [(one.row, one.kind) for one in reading.broken] == [(2, kind)]


def test_texts_alone_need_no_images(tmp_path):
    folder = make_vqa_rad(tmp_path, [vqa_rad_row(0, image_name="absent.jpg")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_vqa("vqa-rad", folder, need_images=False).questions) == 1


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
    assert [one.id for one in reading.questions] == ["test_0001-1"]
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
    assert {one.split for one in reading.questions} == {"validation", "test"}
