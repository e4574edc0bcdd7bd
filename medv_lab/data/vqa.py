"""Visual question answering: any of the three data sets, in the layout its folder has."""

from collections.abc import Callable
from pathlib import Path

from medv_lab.data.hugging_face import is_hugging_face, read_hugging_face
from medv_lab.data.pathvqa import read_pathvqa
from medv_lab.data.rows import Reading
from medv_lab.data.slake import read_slake
from medv_lab.data.vqa_rad import QUESTIONS, read_vqa_rad
from medv_lab.data.vqa_records import VqaRecord, count_records

__all__ = ["READERS", "VqaRecord", "count_records", "read_vqa", "tell_dataset"]

READERS: dict[str, Callable[..., Reading[VqaRecord]]] = {
    "vqa-rad": read_vqa_rad,
    "slake": read_slake,
    "pathvqa": read_pathvqa,
}

# Files of the official releases, by which a folder is told; what two data sets may have comes last.
_MARKS = {
    "vqa-rad": (QUESTIONS,),
    "pathvqa": ("pvqa_*.json", "train_qa.json*", "val*_qa.json*", "test_qa.json*", "qas"),
    "slake": ("train.json", "validate.json", "validation.json", "test.json"),
}


def tell_dataset(folder: str | Path) -> str:
    """Which data set a folder of an official release holds.

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
) -> Reading[VqaRecord]:
    """Read a data set from its official release or from a folder of Hugging Face `datasets`.

    Args:
        dataset: vqa-rad, slake or pathvqa.
        folder: where it lies; the layout is told by what is in it.
        need_images: whether a picture that does not exist makes its row broken.
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
        return READERS[dataset](folder, need_images=need_images)
    if pictures is None:
        raise ValueError(
            f"{str(folder)!r} holds pictures inside its tables; name a folder to write them to with pictures=..."
        )
    return read_hugging_face(dataset, folder, pictures, need_images=need_images)
