"""VQA-RAD as released: one JSON file for all splits and a folder of radiographs, CT and MR pictures.

Quirks of the release, all read without loss: ids and some answers are numbers or texts, `answer_type` has
trailing spaces in places, and a split is told by the way a question was phrased.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medv_lab.data.rows import Reading, read_rows
from medv_lab.data.vqa_records import VqaRecord, choice_of, collect, picture_in, text_of

QUESTIONS = "VQA_RAD Dataset Public.json"
PICTURES = "VQA_RAD Image Folder"
TEST_PREFIX = "test_"
PHRASE_TYPES = ("freeform", "para", "test_freeform", "test_para")
ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}


def read_vqa_rad(folder: str | Path, *, need_images: bool = True) -> Reading[VqaRecord]:
    """Read the official release: 1797 training and 451 test questions.

    Args:
        folder: holds "VQA_RAD Dataset Public.json" and "VQA_RAD Image Folder".
        need_images: whether a picture that does not exist makes its row broken.

    Returns:
        The records, whose modality is None (the release does not say), and the broken rows.

    Raises:
        FileNotFoundError: without the JSON file.
    """
    folder = Path(folder)
    pictures = folder / PICTURES

    def read(row: Mapping[str, Any]) -> VqaRecord:
        phrase = choice_of(row, "phrase_type", PHRASE_TYPES)
        return VqaRecord(
            dataset="vqa-rad",
            id=text_of(row, "qid"),
            image=picture_in(pictures, text_of(row, "image_name")),
            question=text_of(row, "question"),
            answer=text_of(row, "answer"),
            is_closed=choice_of(row, "answer_type", ("OPEN", "CLOSED")) == "CLOSED",
            split="test" if phrase.startswith(TEST_PREFIX) else "train",
            organ=ORGANS[choice_of(row, "image_organ", tuple(ORGANS))],
            modality=None,
            language="en",
        )

    return collect(read_rows(folder / QUESTIONS), read, "qid", need_images)
