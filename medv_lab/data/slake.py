"""SLAKE as released: one JSON file a split, questions in English and Chinese, pictures in folders of their own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medv_lab.data.rows import Reading, read_rows
from medv_lab.data.vqa_records import VqaRecord, choice_of, collect, join, picture_in, split_files, text_of

PICTURES = "imgs"
LANGUAGES = ("en", "zh")


def read_slake(folder: str | Path, *, need_images: bool = True) -> Reading[VqaRecord]:
    """Read the official release, both languages; the paper's Table 8 counts the English questions.

    Args:
        folder: holds `train.json`, `validate.json` (or `validation.json`) and `test.json`, as far as they are
            there, and the pictures as `imgs/xmlabN/source.jpg`.
        need_images: whether a picture that does not exist makes its row broken.

    Raises:
        FileNotFoundError: if no split is there.
    """
    folder = Path(folder)
    files = split_files(folder, "{split}.json")
    if not files:
        raise FileNotFoundError(
            f"{str(folder)!r} has none of train.json, validate.json and test.json; give the folder of SLAKE 1.0"
        )

    def read(row: Mapping[str, Any], split: str) -> VqaRecord:
        return VqaRecord(
            dataset="slake",
            id=text_of(row, "qid"),
            image=picture_in(folder / PICTURES, text_of(row, "img_name")),
            question=text_of(row, "question"),
            answer=text_of(row, "answer"),
            is_closed=choice_of(row, "answer_type", ("OPEN", "CLOSED")) == "CLOSED",
            split=split,
            organ=text_of(row, "location"),
            modality=text_of(row, "modality"),
            language=choice_of(row, "q_lang", LANGUAGES),
        )

    return join(
        collect(read_rows(path), partial(read, split=split), "qid", need_images)
        for split, path in files.items()
    )
