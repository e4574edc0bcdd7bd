"""Folders of Hugging Face datasets: Parquet snapshots and save_to_disk, both written here with pyarrow."""

import io
import json
import sys

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from PIL import Image

from medv_lab.data.images import open_image
from medv_lab.data.vqa import READERS, read_vqa


def picture(value: int, kind: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (5, 4), (value, value, value)).save(content, kind)
    return content.getvalue()


def rows_of(answers: list[str], **columns) -> pa.Table:
    images = [
        {"bytes": picture(10 * (k // 2), "PNG" if k % 4 < 2 else "JPEG"), "path": None}
        for k in range(len(answers))
    ]
    questions = [f"Question {k}?" for k in range(len(answers))]
    return pa.table({"image": images, "question": questions, "answer": answers, **columns})


def write_parquet(folder, split, table, parts=2, place="data"):
    (folder / place).mkdir(parents=True, exist_ok=True)
    size = -(-table.num_rows // parts)
    for part in range(parts):
        name = f"{split}-{part:05d}-of-{parts:05d}.parquet"
        pa.parquet.write_table(table.slice(part * size, size), folder / place / name)


def write_saved(folder, split, table, compression=None):
    (folder / split).mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    name = "data-00000-of-00001.arrow"
    (folder / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(folder / split / name, table.schema, options=options) as stream:
        stream.write_table(table)


ANSWERS = ["yes", "left lung", "No", "CT", "yes"]


@pytest.mark.parametrize("dataset", READERS)
@pytest.mark.parametrize("write", [write_parquet, write_saved])
@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("val", "validation"), ("test", "test")])
def test_both_layouts_give_the_same_questions(tmp_path, dataset, write, name, split):
    write(tmp_path / "set", name, rows_of(ANSWERS))
    reading = read_vqa(dataset, tmp_path / "set", pictures=tmp_path / "pictures")
    assert reading.broken == ()
    assert [one.reference for one in reading.questions] == ANSWERS
    assert [one.id for one in reading.questions] == ["1", "2", "3", "4", "5"]
    assert [one.is_closed for one in reading.questions] == [True, False, True, False, True]
    assert {one.split for one in reading.questions} == {split}
    assert all(one.tags == {"dataset": dataset, "language": "en"} for one in reading.questions)
    levels = [open_image(one.image).getpixel((0, 0))[0] for one in reading.questions]
    assert levels == pytest.approx([0, 0, 10, 10, 20], abs=1)


def test_every_picture_is_written_once(tmp_path):
    write_parquet(tmp_path / "set", "train", rows_of(ANSWERS))
    first = read_vqa("vqa-rad", tmp_path / "set", pictures=tmp_path / "pictures")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").iterdir()}
    assert {path.suffix for path in written} == {".png", ".jpg"}
    assert len(written) == 3
    assert read_vqa("vqa-rad", tmp_path / "set", pictures=tmp_path / "pictures") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").iterdir()} == written


def test_more_columns_say_more(tmp_path):
    table = rows_of(
        ["CT", "有"],
        answer_type=["CLOSED", "OPEN"],
        q_lang=["en", "zh"],
        location=["Lung", "Brain"],
        modality=["CT", "MRI"],
        qid=[7, 8],
    )
    write_parquet(tmp_path / "set", "train", table, parts=1, place=".")
    first, second = read_vqa("slake", tmp_path / "set", pictures=tmp_path / "pictures").questions
    assert (first.id, first.kind, second.id, second.kind) == ("7", "closed", "8", "open")
    assert first.tags == {"dataset": "slake", "language": "en", "organ": "Lung", "modality": "CT"}
    assert second.tags == {"dataset": "slake", "language": "zh", "organ": "Brain", "modality": "MRI"}


@pytest.mark.parametrize("language", ["q_lang", "language"])
def test_case_10_words_are_compared_without_case_and_blanks_and_the_match_is_said(tmp_path, language):
    spelled = {"answer_type": ["closed", " Open ", "CLOSED"], language: ["EN", "Zh", "en "]}
    write_parquet(tmp_path / "set", "train", rows_of(["yes", "a cyst", "no"], **spelled), parts=1)
    with pytest.warns(UserWarning) as said:
        reading = read_vqa("slake", tmp_path / "set", pictures=tmp_path / "pictures")
    assert reading.broken == ()
    assert [one.kind for one in reading.questions] == ["closed", "open", "closed"]
    assert [one.tags["language"] for one in reading.questions] == ["en", "zh", "en"]
    told = {str(one.message) for one in said}
    assert told == {
        "answer_type 'closed' was read as 'CLOSED'",
        "answer_type 'Open' was read as 'OPEN'",
        f"{language} 'EN' was read as 'en'",
        f"{language} 'Zh' was read as 'zh'",
    }


def test_broken_rows_are_reported(tmp_path):
    table = pa.table(
        {
            "image": [{"bytes": None, "path": name} for name in ("a.png", None, "../a.png", "b.png")],
            "question": ["What?"] * 4,
            "answer": ["yes"] * 4,
        }
    )
    write_parquet(tmp_path / "set", "train", table, parts=1)
    (tmp_path / "set" / "a.png").write_bytes(picture(1, "PNG"))
    with pytest.warns(UserWarning, match="3 of the rows"):
        reading = read_vqa("pathvqa", tmp_path / "set", pictures=tmp_path / "pictures")
    assert [one.image for one in reading.questions] == [tmp_path / "set" / "a.png"]
    assert [(one.row, one.kind) for one in reading.broken] == [
        (2, "missing image"),
        (3, "image outside the folder"),
        (4, "missing image"),
    ]


@pytest.mark.parametrize("write", [write_parquet, write_saved])
def test_a_damaged_table_is_named(tmp_path, write):
    write(tmp_path, "train", rows_of(ANSWERS))
    (file, *_) = sorted([*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.arrow")])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{file.name}' cannot be read as a table .*download it again"):
        read_vqa("slake", tmp_path, pictures=tmp_path / "pictures")


def test_pictures_need_a_folder(tmp_path):
    write_parquet(tmp_path, "train", rows_of(ANSWERS))
    with pytest.raises(ValueError, match="pictures="):
        read_vqa("slake", tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write_parquet(tmp_path, "train", rows_of(ANSWERS))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ModuleNotFoundError, match=r"medv-lab\[tables\]"):
        read_vqa("slake", tmp_path, pictures=tmp_path / "pictures")


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("kind", ["batch", "dictionary"])
def test_compressed_batches_are_refused(tmp_path, compression, kind):
    table = rows_of(ANSWERS)
    if kind == "dictionary":
        table = table.set_column(2, "answer", table["answer"].dictionary_encode())
        write_saved(tmp_path / "plain", "train", table)
        reading = read_vqa("vqa-rad", tmp_path / "plain", pictures=tmp_path / "pictures")
        assert [one.reference for one in reading.questions] == ANSWERS
    write_saved(tmp_path / "set", "train", table, compression)
    with pytest.raises(ValueError, match="batches are compressed; save it again uncompressed"):
        read_vqa("vqa-rad", tmp_path / "set", pictures=tmp_path / "pictures")
