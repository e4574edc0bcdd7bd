"""PathVQA without pickles: rows of {image, question, answer}, or the LXMERT layout with one row a picture.

The release keeps its questions in pickles, which can run any code when they are opened, so they are never
opened here. What is read are the same rows written as JSON (`qas/train/train_qa.json` and so on) and the
`pvqa_train.json` files in which the authors' repository has them. Closed are the questions answered by yes or
no: the release does not say, and these counts are the paper's.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medv_lab.data.rows import Fault, Reading, Row, damage, read_rows
from medv_lab.data.vqa_records import (
    SPLIT_FILES,
    VqaRecord,
    collect,
    is_yes_no,
    join,
    picture_in,
    split_files,
    text_of,
)

LXMERT_PREFIX = "pvqa_"
QUESTION_FILES = ("{split}_qa.json", "{split}_qa.jsonl")
SOURCE = "pvqa"  # the LXMERT layout keeps questions by the data set they come from


def read_pathvqa(folder: str | Path, *, need_images: bool = True) -> Reading[VqaRecord]:
    """Read a folder of PathVQA; organ and modality are None, since the release does not say.

    Args:
        folder: holds, for each split that is there, `pvqa_{split}.json`, or `{split}_qa.json` or `.jsonl`, beside
            each other or as `qas/{split}_qa.json` or `qas/{split}/{split}_qa.json`; pictures are
            `images/{split}/{name}.jpg`. The validation split may be called val.
        need_images: whether a picture that does not exist makes its row broken.

    Raises:
        FileNotFoundError: if no split is there in one of these layouts.
    """
    folder = Path(folder)
    files = split_files(folder, LXMERT_PREFIX + "{split}.json") or _question_files(folder)
    if not files:
        pickles = sorted(path.name for path in folder.rglob("*.pkl"))
        hint = f"; it has {', '.join(pickles[:3])}, but pickles are never opened" if pickles else ""
        raise FileNotFoundError(
            f"{str(folder)!r} has no questions of PathVQA{hint}. Give a folder with pvqa_train.json, or with "
            "qas/train/train_qa.json, a list of {image, question, answer} (and so on for val and test)"
        )
    return join(_read(files[split], split, folder, need_images) for split in files)


def _question_files(folder: Path) -> dict[str, Path]:
    places = ("", "qas/", "qas/{split}/")
    found: dict[str, Path] = {}
    for place in places:
        for name in QUESTION_FILES:
            found = split_files(folder, place + name) | found
    return found


def _read(path: Path, split: str, folder: Path, need_images: bool) -> Reading[VqaRecord]:
    """One split; rows are {id, image, question, answer} by now."""
    names = [name for name in SPLIT_FILES[split] if (folder / "images" / name).is_dir()]
    pictures = folder / "images" / (names[0] if names else SPLIT_FILES[split][-1])

    def read(row: Mapping[str, Any]) -> VqaRecord:
        image = text_of(row, "image")
        answer = text_of(row, "answer")
        return VqaRecord(
            dataset="pathvqa",
            id=text_of(row, "id"),
            image=picture_in(pictures, image if Path(image).suffix else f"{image}.jpg"),
            question=text_of(row, "question"),
            answer=answer,
            is_closed=is_yes_no(answer),
            split=split,
            organ=None,
            modality=None,
            language="en",
        )

    rows = read_rows(path)
    is_lxmert = path.name.startswith(LXMERT_PREFIX)
    return collect(_questions(rows) if is_lxmert else _numbered(rows), read, "id", need_images)


def _numbered(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows named by their numbers, since the release gives its questions no names."""
    for number, value in rows:
        is_object = isinstance(value, Mapping)
        yield Row(number, {**value, "id": str(number)} if is_object else value)


def _questions(rows: Iterable[Row]) -> Iterator[Row]:
    """Every question of every picture as a row; a picture without questions, of which there are some, is whole."""
    for number, value in rows:
        if not isinstance(value, Mapping):
            yield Row(number, value)
            continue
        try:
            name = text_of(value, "img_id")
            questions, labels = _list_of(value, "sentf"), _list_of(value, "labelf")
            if len(questions) != len(labels):
                raise Fault(
                    "unequal lists",
                    f"{len(questions)} questions have {len(labels)} answers",
                    "give every question its answer",
                )
        except Fault as fault:
            yield Row(number, damage(number, str(value.get("img_id", "")), fault))
            continue
        for place, (question, label) in enumerate(zip(questions, labels, strict=True)):
            answers = list(label) if isinstance(label, Mapping) else []
            answer = answers[0] if len(answers) == 1 else label
            yield Row(
                number, {"id": f"{name}-{place}", "image": name, "question": question, "answer": answer}
            )


def _list_of(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    found = value.get(SOURCE) if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise Fault("wrong type", f"{key} is {value!r:.60}", f"give {{{SOURCE!r}: [...]}}")
    return found
