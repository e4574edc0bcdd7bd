"""VQA-RAD, SLAKE and PathVQA in the layouts in which they were released.

Texts are trimmed at both ends, since training does not trim them; everything else is as released. Splits are named
train, validation and test whatever a release calls them. A question's tags are its data set, its language, and organ
and modality where the release names them.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medv_lab.data.rows import (
    Fault,
    Reading,
    Row,
    choice_of,
    damage,
    image_in,
    join,
    read_questions,
    read_rows,
    text_of,
)
from medv_lab.records import Question

SPLIT_FILES = {"train": ("train",), "validation": ("validation", "validate", "val"), "test": ("test",)}
LANGUAGES = ("en", "zh")
ANSWER_TYPES = {"CLOSED": "closed", "OPEN": "open"}

VQA_RAD_QUESTIONS = "VQA_RAD Dataset Public.json"
VQA_RAD_IMAGES = "VQA_RAD Image Folder"
VQA_RAD_PHRASE_TYPES = {"freeform": "train", "para": "train", "test_freeform": "test", "test_para": "test"}
VQA_RAD_ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}

SLAKE_IMAGES = "imgs"

PATHVQA_FILES = ("{split}_qa.json", "{split}_qa.jsonl")
PATHVQA_FOLDERS = ("", "qas/", "qas/{split}/")
LXMERT_PREFIX = "pvqa_"
LXMERT_SOURCE = "pvqa"  # the LXMERT layout keeps questions by the data set they come from


def read_vqa_rad(folder: str | Path, *, need_images: bool = True) -> Reading:
    """Read VQA-RAD: 1797 training and 451 test questions about radiographs, CT and MR images.

    One file has all splits; the way in which a question was phrased says which. Ids and some answers are numbers or
    texts, and `answer_type` has trailing spaces in places. The release names no modality.

    Args:
        folder: holds "VQA_RAD Dataset Public.json" and "VQA_RAD Image Folder".
        need_images: if true, a picture that does not exist makes its row broken.

    Raises:
        FileNotFoundError: without the JSON file.
    """
    folder = Path(folder)

    def make(row: Mapping[str, Any]) -> Question:
        return Question(
            id=text_of(row, "qid"),
            text=text_of(row, "question"),
            image=image_in(folder / VQA_RAD_IMAGES, text_of(row, "image_name")),
            reference=text_of(row, "answer"),
            kind=ANSWER_TYPES[choice_of(row, "answer_type", tuple(ANSWER_TYPES))],
            split=VQA_RAD_PHRASE_TYPES[choice_of(row, "phrase_type", tuple(VQA_RAD_PHRASE_TYPES))],
            tags={
                "dataset": "vqa-rad",
                "language": "en",
                "organ": VQA_RAD_ORGANS[choice_of(row, "image_organ", tuple(VQA_RAD_ORGANS))],
            },
        )

    return read_questions(read_rows(folder / VQA_RAD_QUESTIONS), make, "qid", need_images)


def read_slake(folder: str | Path, *, need_images: bool = True) -> Reading:
    """Read SLAKE, in English and Chinese; Table 8 of the paper counts the English questions.

    Args:
        folder: holds `train.json`, `validate.json` (or `validation.json`) and `test.json`, as far as they are
            there, and the pictures as `imgs/xmlabN/source.jpg`.
        need_images: if true, a picture that does not exist makes its row broken.

    Raises:
        FileNotFoundError: if no split is there.
    """
    folder = Path(folder)
    files = _split_files(folder, "{split}.json")
    if not files:
        raise FileNotFoundError(
            f"{str(folder)!r} has none of train.json, validate.json and test.json; give the folder of SLAKE 1.0"
        )

    def make(row: Mapping[str, Any], split: str) -> Question:
        return Question(
            id=text_of(row, "qid"),
            text=text_of(row, "question"),
            image=image_in(folder / SLAKE_IMAGES, text_of(row, "img_name")),
            reference=text_of(row, "answer"),
            kind=ANSWER_TYPES[choice_of(row, "answer_type", tuple(ANSWER_TYPES))],
            split=split,
            tags={
                "dataset": "slake",
                "language": choice_of(row, "q_lang", LANGUAGES),
                "organ": text_of(row, "location"),
                "modality": text_of(row, "modality"),
            },
        )

    return join(
        read_questions(read_rows(path), partial(make, split=split), "qid", need_images)
        for split, path in files.items()
    )


def read_pathvqa(folder: str | Path, *, need_images: bool = True) -> Reading:
    """Read PathVQA without its pickles, which can run any code when they are opened.

    Read are the same rows written as JSON, and the LXMERT layout of the authors' repository, with one row per
    picture. The release names neither organ nor modality, nor which questions are closed: those answered by yes or
    no, by which the counts are the paper's.

    Args:
        folder: holds, for each split that is there, `pvqa_{split}.json` (LXMERT), or `{split}_qa.json` or `.jsonl`
            with {image, question, answer}, beside each other or as `qas/{split}_qa.json` or
            `qas/{split}/{split}_qa.json`; pictures are `images/{split}/{name}.jpg`. The validation split may be
            called val.
        need_images: if true, a picture that does not exist makes its row broken.

    Raises:
        FileNotFoundError: if no split is there in one of these layouts.
    """
    folder = Path(folder)
    files = _split_files(folder, LXMERT_PREFIX + "{split}.json")
    if not files:
        for place in PATHVQA_FOLDERS:
            for name in PATHVQA_FILES:
                files = _split_files(folder, place + name) | files
    if not files:
        pickles = sorted(path.name for path in folder.rglob("*.pkl"))
        hint = f"; it has {', '.join(pickles[:3])}, but pickles are never opened" if pickles else ""
        raise FileNotFoundError(
            f"{str(folder)!r} has no questions of PathVQA{hint}. Give a folder with pvqa_train.json, or with "
            "qas/train/train_qa.json, a list of {image, question, answer} (and so on for val and test)"
        )

    def make(row: Mapping[str, Any], split: str, images: Path) -> Question:
        image = text_of(row, "image")
        answer = text_of(row, "answer")
        return Question(
            id=text_of(row, "id"),
            text=text_of(row, "question"),
            image=image_in(images, image if Path(image).suffix else f"{image}.jpg"),
            reference=answer,
            kind=kind_of_answer(answer),
            split=split,
            tags={"dataset": "pathvqa", "language": "en"},
        )

    readings = []
    for split, path in files.items():
        names = [name for name in SPLIT_FILES[split] if (folder / "images" / name).is_dir()]
        images = folder / "images" / (names[0] if names else SPLIT_FILES[split][-1])
        rows = (_lxmert_rows if path.name.startswith(LXMERT_PREFIX) else _numbered)(read_rows(path))
        readings.append(read_questions(rows, partial(make, split=split, images=images), "id", need_images))
    return join(readings)


def kind_of_answer(answer: str) -> str:
    """Return "closed" for yes and no, else "open", for data sets that do not say which questions are closed."""
    return "closed" if answer.lower() in ("yes", "no") else "open"


def _split_files(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files of those splits that a folder has, by our names of the splits.

    `pattern` is the file's name with {split} where the release writes the split, e.g. "pvqa_{split}.json".
    """
    found = {}
    for split, names in SPLIT_FILES.items():
        paths = [folder / pattern.format(split=name) for name in names]
        there = [path for path in paths if path.is_file()]
        if there:
            found[split] = there[0]
    return found


def _numbered(rows: Iterable[Row]) -> Iterator[Row]:
    """Name rows by their numbers, since the release gives its questions no names."""
    for number, value in rows:
        yield Row(number, {**value, "id": str(number)} if isinstance(value, Mapping) else value)


def _lxmert_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Make a row of every question of every picture; a picture without questions, of which there are some, is whole."""
    for number, value in rows:
        if not isinstance(value, Mapping):
            yield Row(number, value)
            continue
        try:
            name = text_of(value, "img_id")
            questions, labels = _lxmert_list(value, "sentf"), _lxmert_list(value, "labelf")
            if len(questions) != len(labels):
                raise Fault(
                    "unequal lists",
                    f"{len(questions)} questions have {len(labels)} answers",
                    "give every question its answer",
                )
        except Fault as fault:
            yield Row(number, damage(number, str(value.get("img_id", "")), fault))
            continue
        for index, (question, label) in enumerate(zip(questions, labels, strict=True)):
            # A label maps each answer to its weight; PathVQA has one answer per question.
            answers = list(label) if isinstance(label, Mapping) else []
            answer = answers[0] if len(answers) == 1 else label
            yield Row(
                number, {"id": f"{name}-{index}", "image": name, "question": question, "answer": answer}
            )


def _lxmert_list(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    found = value.get(LXMERT_SOURCE) if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise Fault("wrong type", f"{key} is {value!r:.60}", f"give {{{LXMERT_SOURCE!r}: [...]}}")
    return found
