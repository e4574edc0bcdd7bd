"""Planted damage: each kind is found where it lies, all at once, and nothing else is."""

import json

import pytest

from medv_lab.data.images import open_image
from medv_lab.data.instructions import ROLES
from medv_lab.data.validation import check_instructions
from tests.data.released import draw, write_json, write_lines
from tests.data.test_instructions import WHOLE, row_of


def said(*messages, **more) -> dict:
    return {"image": "a.png", "conversations": [{"from": r, "value": v} for r, v in messages]} | more


def asked(text="<image>\nWhat?", answer="A lung.", **more) -> dict:
    return said(("human", text), ("gpt", answer), **more)


NO_IMAGE = {"image": None}
DAMAGED = {
    "missing image": [asked(image="absent.png"), asked(image="x" * 5000), asked(image="folder")],
    "image outside the folder": [asked(image="../a.png"), asked(image="/a.png")],
    "unknown role": [said(("human", "<image>"), ("bot", "b")), said(("human", "<image>"), (["gpt"], "b"))],
    "no placeholder": [asked("What?")],
    "several placeholders for one image": [asked("<image> <image>")],
    "placeholders and images differ": [asked("<image>", image=["a.png", "b.png"])],
    "placeholder without an image": [asked(**NO_IMAGE), asked(image=[])],
    "placeholder in an answer": [asked("What?", "<image> A lung.")],
    "no conversation": [{"image": "a.png"}, {"conversations": None}],
    "empty conversation": [{"image": "a.png", "conversations": []}],
    "empty answer": [asked(answer=""), asked(answer=" \n")],
    "empty question": [asked("", **NO_IMAGE)],
    "no question first": [said(("gpt", "Hello."), ("human", "<image>"), ("gpt", "b"))],
    "repeated role": [said(("human", "<image>"), ("human", "What?"), ("gpt", "b"))],
    "no answer last": [said(("human", "<image>"), ("gpt", "b"), ("human", "c"))],
    "special token": [asked(answer="A <|mdm_mask|>."), asked("<image> <|eot_id|>")],
    "wrong type": [
        asked(image=3),
        asked(image=["a.png", None]),
        asked(id=1.5),
        asked(id=True),
        asked(id=["x"]),
        {"conversations": "text"},
        {"conversations": [["human", "text"]]},
        {"conversations": [{"from": "human"}]},
    ],
    "not text": [asked(answer=3), asked(answer=None), asked(answer=["a"])],
    "not an object": [3, "text", None, [asked()]],
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    draw(folder / "a.png")
    draw(folder / "b.png", 10)
    draw(folder / "folder" / "c.png")
    return folder


@pytest.fixture
def check(tmp_path, images):
    """Write rows as a list, or otherwise, and check them."""

    def check_rows(rows, write=write_json, **options):
        return check_instructions(write(tmp_path / "x.json", rows), images, **options)

    return check_rows


def kinds_of(report) -> list[tuple[int, str]]:
    return [(one.row, one.kind) for one in report.damages]


def test_whole_rows_have_no_damage(check):
    report = check([{**row, "id": number} for number, row in enumerate(WHOLE)], open_images=True)
    assert (report.damages, report.rows, report.images, report.broken_rows) == ((), 5, 2, 0)
    assert report.counts().empty
    assert report.table().empty


PLANTED = [(kind, row) for kind, rows in DAMAGED.items() for row in rows]


@pytest.mark.parametrize("write", [write_json, write_lines])
def test_all_damage_of_a_file_is_reported_at_once_and_where_it_lies(check, write):
    report = check([row for _, planted in PLANTED for row in (asked(), planted)], write)
    assert kinds_of(report) == [(2 * number, kind) for number, (kind, _) in enumerate(PLANTED, 1)]
    assert report.broken_rows == len(PLANTED)
    assert set(report.counts().index) == set(DAMAGED)
    assert report.counts().sum() == len(report.damages)
    assert report.table().columns.tolist() == ["row", "id", "kind", "what", "remedy"]
    assert all(one.what and one.remedy for one in report.damages)
    roles = next(one for one in report.damages if one.kind == "unknown role")
    assert all(role in roles.remedy for role in ROLES)


def test_several_faults_of_one_row_are_all_said(check):
    report = check([said(("gpt", ""), ("bot", "b"), id=1.5)])
    assert [kind for _, kind in kinds_of(report)] == ["wrong type", "empty answer", "unknown role"]
    assert report.broken_rows == 1


def test_ids_that_are_there_twice(check):
    report = check([asked(id="a"), asked(), asked(id="a"), asked(), asked(id=1), asked(id="1")])
    assert kinds_of(report) == [(3, "duplicate id"), (6, "duplicate id")]
    assert str(report.damages[0]).startswith("row 3 (id a): duplicate id: row 1 has it too")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut off"])
def test_pictures_are_opened_only_when_asked(check, images, content):
    (images / "a.png").write_bytes(content)
    rows = [asked(), asked(image="b.png"), asked()]
    assert check(rows).damages == ()
    assert kinds_of(check(rows, open_images=True)) == [(1, "unreadable image"), (3, "unreadable image")]


def test_a_picture_is_opened_once(check, monkeypatch):
    opened = []

    def open_once(path):
        opened.append(path.name)
        return open_image(path)

    monkeypatch.setattr("medv_lab.data.validation.open_image", open_once)
    check([asked(), asked(image="b.png"), asked(), asked()], open_images=True)
    assert opened == ["a.png", "b.png"]


@pytest.mark.parametrize(("write", "end"), [(write_json, "]"), (write_lines, "}\n")])
def test_a_file_that_was_cut_off_is_read_to_the_cut(check, write, end):
    def cut(path, rows):
        write(path, rows).write_text(path.read_text().removesuffix(end)[:-5])
        return path

    report = check([asked(), asked(answer=""), asked()], cut)
    assert kinds_of(report) == [(2, "empty answer"), (3, "truncated JSON")]


def test_half_a_surrogate_pair_is_not_text(check):
    def write(path, row):
        path.write_text(json.dumps(row))
        return path

    assert kinds_of(check(asked(answer="A \ud83d."), write)) == [(1, "not text")]


def positions(dialogue, sizes) -> int:
    return sum(len(text.split()) for _, text in dialogue.turns) + sum(w * h for w, h in sizes)


@pytest.mark.parametrize(("limit", "broken"), [(None, []), (27, []), (26, [1]), (3, [1, 2])])
def test_lengths_count_the_image_in(check, limit, broken):
    """A picture of 6 x 4 counts 24 positions here, and the row's words three more."""
    rows = [asked("<image> What?", "Lung."), asked("One two?", "Three four.", **NO_IMAGE)]
    report = check(rows, length_of=positions, max_length=limit)
    assert kinds_of(report) == [(row, "too long") for row in broken]
    assert report.summary().loc["positions", ["least", "most", "sum"]].tolist() == [4, 27, 31]


def test_the_summary_is_of_rows_whole_by_themselves(check):
    rows = [asked("<image>ab", "c"), row_of("<image>", "d", "e", "ff"), asked(answer="")]
    summary = check(rows).summary()
    assert summary.columns.tolist() == ["rows", "least", "median", "mean", "95 %", "most", "sum"]
    assert summary.loc["turns"].tolist() == pytest.approx([2, 2, 3, 3, 3.9, 4, 6])
    assert summary.loc["question characters", "sum"] == 9 + 8
    assert summary.loc["answer characters", "sum"] == 1 + 3
    assert check([3]).summary().empty


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        check_instructions(write_json(tmp_path / "x.json", [asked()]), tmp_path / "absent")
