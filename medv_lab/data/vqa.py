"""Visual question answering: VQA-RAD, SLAKE and PathVQA, in the layout that a folder has."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from medv_lab.data.hugging_face import is_hugging_face, read_hugging_face
from medv_lab.data.releases import VQA_RAD_QUESTIONS, read_pathvqa, read_slake, read_vqa_rad
from medv_lab.data.rows import Reading
from medv_lab.records import Question

SPLITS = ("train", "validation", "test")
READERS = {"vqa-rad": read_vqa_rad, "slake": read_slake, "pathvqa": read_pathvqa}

# Files of the official releases, by which a folder is told; those that two data sets may have come last.
_MARKS = {
    "vqa-rad": (VQA_RAD_QUESTIONS,),
    "pathvqa": ("pvqa_*.json", "train_qa.json*", "val*_qa.json*", "test_qa.json*", "qas"),
    "slake": ("train.json", "validate.json", "validation.json", "test.json"),
}


def tell_dataset(folder: str | Path) -> str:
    """Return the name of the data set whose official release a folder holds.

    Raises:
        ValueError: if its files do not say, as those of Hugging Face folders do not.
    """
    folder = Path(folder)
    for dataset, patterns in _MARKS.items():
        if any(any(folder.glob(pattern)) for pattern in patterns):
            return dataset
    raise ValueError(
        f"{str(folder)!r} does not say which data set it holds; name it: {', '.join(READERS)} are known"
    )


def read_vqa(
    dataset: str, folder: str | Path, *, need_images: bool = True, pictures: str | Path | None = None
) -> Reading:
    """Read a data set from its official release or from a folder of Hugging Face `datasets`.

    Ids are unique within a split. Every question has the tags dataset and language ("en" or "zh"), and organ and
    modality where the data set names them.

    Args:
        dataset: vqa-rad, slake or pathvqa.
        folder: the release; its layout is told by what is in it.
        need_images: if true, a picture that does not exist makes its row broken.
        pictures: for a Hugging Face folder, which holds pictures inside its tables: where to write them.

    Returns:
        All splits that are there, and the broken rows, of which a warning tells too.

    Raises:
        ValueError: for an unknown data set, or a Hugging Face folder without `pictures`.
        FileNotFoundError: if the folder has none of the data set's files.
    """
    if dataset not in READERS:
        raise ValueError(f"dataset is {dataset!r}; allowed are {', '.join(READERS)}")
    folder = Path(folder)
    if not is_hugging_face(folder):
        return READERS[dataset](folder, need_images)
    if pictures is None:
        raise ValueError(
            f"{str(folder)!r} holds pictures inside its tables; name a folder to write them to with pictures=..."
        )
    return read_hugging_face(dataset, folder, Path(pictures), need_images)


def count_questions(questions: Iterable[Question]) -> pd.DataFrame:
    """Count pictures and questions by data set and split, in the columns of the paper's Table 8.

    Splits keep our names (the table writes val for validation), data sets theirs.
    """
    rows = [
        (question.tags["dataset"], question.split, str(question.image), question.is_closed)
        for question in questions
    ]
    rows.sort(key=lambda row: (row[0], SPLITS.index(row[1])))
    frame = pd.DataFrame(rows, columns=["dataset", "split", "image", "is_closed"])
    grouped = frame.groupby(["dataset", "split"], sort=False)
    counts = grouped.agg(
        images=("image", "nunique"), question_answer_pairs=("image", "size"), closed_form=("is_closed", "sum")
    )
    counts["open_form"] = counts.question_answer_pairs - counts.closed_form
    return counts.astype(int).reset_index()
