"""Planted damage: each kind is found where it lies, all at once, and nothing else is."""

import json

import pytest

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


def kinds_of(report) -> list[tuple[int, str]]:
    return [(one.row, one.kind) for one in report.damages]


def test_whole_rows_have_no_damage(tmp_path, images):
    rows = [{**row, "id": number} for number, row in enumerate(WHOLE)]
    report = check_instructions(write_json(tmp_path / "x.json", rows), images, open_images=True)
    assert report.damages == ()
    assert (report.rows, report.images, report.broken_rows) == (5, 2, 0)
    assert report.counts().empty
    assert report.table().empty


PLANTED = [(kind, row) for kind, rows in DAMAGED.items() for row in rows]


@pytest.mark.parametrize(("kind", "row"), PLANTED)
def test_each_kind_of_damage_is_found(tmp_path, images, kind, row):
    path = write_json(tmp_path / "x.json", [asked(), row, asked()])
    assert set(kinds_of(check_instructions(path, images))) == {(2, kind)}


@pytest.mark.parametrize("write", [write_json, write_lines])
def test_all_damage_of_a_file_is_reported_at_once(tmp_path, images, write):
    path = write(tmp_path / "x.json", [row for _, row in PLANTED])
    report = check_instructions(path, images)
    assert dict(kinds_of(report)) == {number: kind for number, (kind, _) in enumerate(PLANTED, 1)}
    assert report.broken_rows == report.rows == len(PLANTED)
    assert set(report.counts().index) == set(DAMAGED)
    assert report.counts().sum() == len(report.damages)
    table = report.table()
    assert table.row.tolist() == [one.row for one in report.damages]
    assert (table.what.str.len() > 0).all()
    assert (table.remedy.str.len() > 0).all()


def test_several_faults_of_one_row_are_all_said(tmp_path, images):
    row = said(("gpt", ""), ("bot", "b"), id=1.5)
    report = check_instructions(write_json(tmp_path / "x.json", [row]), images)
    assert [kind for _, kind in kinds_of(report)] == ["wrong type", "empty answer", "unknown role"]
    assert report.broken_rows == 1


def test_ids_that_are_there_twice(tmp_path, images):
    rows = [asked(id="a"), asked(), asked(id="a"), asked(), asked(id=1), asked(id="1")]
    report = check_instructions(write_json(tmp_path / "x.json", rows), images)
    assert kinds_of(report) == [(3, "duplicate id"), (6, "duplicate id")]
    assert report.damages[0].id == "a"
    assert "row 1" in report.damages[0].what


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut off"])
def test_pictures_are_opened_only_when_asked(tmp_path, images, content):
    (images / "a.png").write_bytes(content)
    path = write_json(tmp_path / "x.json", [asked(), asked(image="b.png"), asked()])
    assert check_instructions(path, images).damages == ()
    report = check_instructions(path, images, open_images=True)
    assert kinds_of(report) == [(1, "unreadable image"), (3, "unreadable image")]


def test_a_picture_is_opened_once(tmp_path, images, monkeypatch):
    opened = []

    def open_once(path):
        opened.append(path.name)
        return open_image(path)

    from medv_lab.data.images import open_image

    monkeypatch.setattr("medv_lab.data.validation.open_image", open_once)
    rows = [asked(), asked(image="b.png"), asked(), asked()]
    check_instructions(write_json(tmp_path / "x.json", rows), images, open_images=True)
    assert opened == ["a.png", "b.png"]


@pytest.mark.parametrize(("write", "end"), [(write_json, "]"), (write_lines, "}\n")])
def test_a_file_that_was_cut_off_is_read_to_the_cut(tmp_path, images, write, end):
    path = write(tmp_path / "x.json", [asked(), asked(answer=""), asked()])
    path.write_text(path.read_text().removesuffix(end)[:-5])
    report = check_instructions(path, images)
    assert kinds_of(report) == [(2, "empty answer"), (3, "truncated JSON")]


def test_half_a_surrogate_pair_is_not_text(tmp_path, images):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(asked(answer="A \ud83d.")) + "\n")
    assert kinds_of(check_instructions(path, images)) == [(1, "not text")]


def positions(dialogue, sizes) -> int:
    return sum(len(text.split()) for _, text in dialogue.turns) + sum(w * h for w, h in sizes)


@pytest.mark.parametrize(("limit", "broken"), [(27, []), (26, [1]), (3, [1, 2])])
def test_lengths_count_the_image_in(tmp_path, images, limit, broken):
    """A picture of 6 x 4 counts 24 positions here, and the row's words three more."""
    rows = [asked("<image> What?", "Lung."), asked("One two?", "Three four.", **NO_IMAGE)]
    report = check_instructions(
        write_json(tmp_path / "x.json", rows), images, open_images=True, length_of=positions, max_length=limit
    )
    assert kinds_of(report) == [(row, "too long") for row in broken]
    assert report.summary().loc["positions", ["least", "most", "sum"]].tolist() == [4, 27, 31]


def test_the_summary_is_of_rows_whole_by_themselves(tmp_path, images):
    rows = [asked("<image>ab", "c"), row_of("<image>", "d", "e", "ff"), asked(answer="")]
    summary = check_instructions(write_json(tmp_path / "x.json", rows), images).summary()
    assert summary.loc["turns"].to_dict() == {
        "rows": 2,
        "least": 2,
        "median": 3,
        "mean": 3,
        "95 %": pytest.approx(3.9),
        "most": 4,
        "sum": 6,
    }
    assert summary.loc["question characters", "sum"] == 9 + 8
    assert summary.loc["answer characters", "sum"] == 1 + 3


def test_a_file_without_a_whole_row_has_an_empty_summary(tmp_path, images):
    assert check_instructions(write_json(tmp_path / "x.json", [3]), images).summary().empty


def test_arguments_that_do_not_go_together(tmp_path, images):
    path = write_json(tmp_path / "x.json", [asked()])
    with pytest.raises(FileNotFoundError, match="no folder"):
        check_instructions(path, tmp_path / "absent")
    with pytest.raises(ValueError, match="open_images=True"):
        check_instructions(path, images, length_of=positions, max_length=3)
    with pytest.raises(ValueError, match="given together"):
        check_instructions(path, images, max_length=3)


@pytest.mark.parametrize("role", ROLES)
def test_the_message_of_an_unknown_role_names_the_allowed(tmp_path, images, role):
    path = write_json(tmp_path / "x.json", [said(("human", "<image>"), ("bot", "b"))])
    assert role in check_instructions(path, images).damages[0].remedy
