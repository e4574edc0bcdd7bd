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
VQA_RAD_PHRASE_TYPES = {"freeform": "train", "para": "train", "test_freeform": "test", "test_para": "test"}
VQA_RAD_ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}

LXMERT_PREFIX = "pvqa_"
LXMERT_SOURCE = "pvqa"  # the LXMERT layout keeps questions by the data set they come from
PATHVQA_FILES = (
    *("{split}_qa.json", "{split}_qa.jsonl", "qas/{split}_qa.json", "qas/{split}_qa.jsonl"),
    *("qas/{split}/{split}_qa.json", "qas/{split}/{split}_qa.jsonl"),
)


def read_vqa_rad(folder: Path, need_images: bool) -> Reading:
    """Read VQA-RAD: 1797 training and 451 test questions about radiographs, CT and MR images.

    One file has all splits; the way in which a question was phrased says which. Ids and some answers are numbers or
    texts, and `answer_type` has trailing spaces in places. The release names no modality.

    Args:
        folder: holds "VQA_RAD Dataset Public.json" and "VQA_RAD Image Folder".
        need_images: as in `read_vqa`.

    Raises:
        FileNotFoundError: without the JSON file.
    """

    def make(row: Mapping[str, Any]) -> Question:
        split = VQA_RAD_PHRASE_TYPES[choice_of(row, "phrase_type", VQA_RAD_PHRASE_TYPES)]
        image = image_in(folder / "VQA_RAD Image Folder", text_of(row, "image_name"))
        organ = VQA_RAD_ORGANS[choice_of(row, "image_organ", VQA_RAD_ORGANS)]
        return question_of(row, "vqa-rad", split, image, "qid", kind_of_type(row), organ=organ)

    return read_questions(read_rows(folder / VQA_RAD_QUESTIONS), make, "qid", need_images)


def read_slake(folder: Path, need_images: bool) -> Reading:
    """Read SLAKE, in English and Chinese; Table 8 of the paper counts the English questions.

    Args:
        folder: holds `train.json`, `validate.json` (or `validation.json`) and `test.json`, as far as they are
            there, and the pictures as `imgs/xmlabN/source.jpg`.
        need_images: as in `read_vqa`.

    Raises:
        FileNotFoundError: if no split is there.
    """
    files = _split_files(folder, "{split}.json")
    if not files:
        raise FileNotFoundError(
            f"{str(folder)!r} has none of train.json, validate.json and test.json; give the folder of SLAKE 1.0"
        )

    def make(row: Mapping[str, Any], split: str) -> Question:
        image = image_in(folder / "imgs", text_of(row, "img_name"))
        tags = {"language": choice_of(row, "q_lang", LANGUAGES)}
        tags |= {"organ": text_of(row, "location"), "modality": text_of(row, "modality")}
        return question_of(row, "slake", split, image, "qid", kind_of_type(row), **tags)

    return join(
        read_questions(read_rows(path), partial(make, split=split), "qid", need_images)
        for split, path in files.items()
    )


def read_pathvqa(folder: Path, need_images: bool) -> Reading:
    """Read PathVQA without its pickles, which can run any code when they are opened.

    Read are the same rows written as JSON, and the LXMERT layout of the authors' repository, with one row per
    picture. The release names neither organ nor modality, nor which questions are closed: those answered by yes or
    no, by which the counts are the paper's.

    Args:
        folder: holds, for each split that is there, `pvqa_{split}.json` (LXMERT), or `{split}_qa.json` or `.jsonl`
            with {image, question, answer}, beside each other or as `qas/{split}_qa.json` or
            `qas/{split}/{split}_qa.json`; pictures are `images/{split}/{name}.jpg`. The validation split may be
            called val.
        need_images: as in `read_vqa`.

    Raises:
        FileNotFoundError: if no split is there in one of these layouts.
    """
    files = _split_files(folder, LXMERT_PREFIX + "{split}.json") or _split_files(folder, *PATHVQA_FILES)
    if not files:
        pickles = sorted(path.name for path in folder.rglob("*.pkl"))
        hint = f"; it has {', '.join(pickles[:3])}, but pickles are never opened" if pickles else ""
        raise FileNotFoundError(
            f"{str(folder)!r} has no questions of PathVQA{hint}. Give a folder with pvqa_train.json, or with "
            "qas/train/train_qa.json, a list of {image, question, answer} (and so on for val and test)"
        )

    def make(row: Mapping[str, Any], split: str, images: Path) -> Question:
        name = text_of(row, "image")
        image = image_in(images, name if Path(name).suffix else f"{name}.jpg")
        return question_of(row, "pathvqa", split, image, "id")

    readings = []
    for split, path in files.items():
        folders = [folder / "images" / name for name in SPLIT_FILES[split]]
        images = next(filter(Path.is_dir, folders), folders[-1])
        rows = (_lxmert_rows if path.name.startswith(LXMERT_PREFIX) else _numbered)(read_rows(path))
        readings.append(read_questions(rows, partial(make, split=split, images=images), "id", need_images))
    return join(readings)


def question_of(
    row: Mapping[str, Any], dataset: str, split: str, image: Path, id_key: str, kind: str = "", **tags: str
) -> Question:
    """Make a question of a row with `question` and `answer`.

    Without a kind, what is answered by yes or no is closed and all else open; without a tag, the language is English.
    """
    answer = text_of(row, "answer")
    return Question(
        id=text_of(row, id_key),
        text=text_of(row, "question"),
        image=image,
        reference=answer,
        kind=kind or ("closed" if answer.lower() in ("yes", "no") else "open"),
        split=split,
        tags={"dataset": dataset, "language": "en", **tags},
    )


def kind_of_type(row: Mapping[str, Any]) -> str:
    """Return a question's kind by its `answer_type`."""
    return ANSWER_TYPES[choice_of(row, "answer_type", ANSWER_TYPES)]


def _split_files(folder: Path, *patterns: str) -> dict[str, Path]:
    """Return the files of those splits that a folder has, by our names of the splits.

    Patterns are names of files with {split} where the release writes the split, e.g. "pvqa_{split}.json"; the first
    that is there counts.
    """
    found = {}
    for split, names in SPLIT_FILES.items():
        paths = [folder / pattern.format(split=name) for pattern in patterns for name in names]
        if path := next(filter(Path.is_file, paths), None):
            found[split] = path
    return found


def _numbered(rows: Iterable[Row]) -> Iterator[Row]:
    """Name rows by their numbers, since the release gives its questions no names."""
    for number, value in rows:
        yield number, {**value, "id": number} if isinstance(value, Mapping) else value


def _lxmert_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Make a row of every question of every picture; a picture without questions, of which there are some, is whole."""
    for number, value in rows:
        if not isinstance(value, Mapping):
            yield number, value
            continue
        try:
            name = text_of(value, "img_id")
            questions, labels = _lxmert_list(value, "sentf"), _lxmert_list(value, "labelf")
            if len(questions) != len(labels):
                found = f"{len(questions)} questions have {len(labels)} answers"
                raise Fault("unequal lists", found, "give every question its answer")
        except Fault as fault:
            yield number, damage(number, str(value.get("img_id", "")), fault)
            continue
        for index, (question, label) in enumerate(zip(questions, labels, strict=True)):
            # A label maps each answer to its weight; PathVQA has one answer per question.
            answer = next(iter(label)) if isinstance(label, Mapping) and len(label) == 1 else label
            yield number, {"id": f"{name}-{index}", "image": name, "question": question, "answer": answer}


def _lxmert_list(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    found = value.get(LXMERT_SOURCE) if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise Fault("wrong type", f"{key} is {value!r:.60}", f"give {{{LXMERT_SOURCE!r}: [...]}}")
    return found
