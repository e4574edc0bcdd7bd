"""The one record of visual question answering that every data set's reader gives, and how readers make it.

Texts are trimmed at both ends, since training does not trim them; everything else is as released. Splits are
named train, validation and test whatever a release calls them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from medv_lab.data.rows import Damage, Fault, Reading, Row, damage

SPLITS = ("train", "validation", "test")
SPLIT_FILES = {"train": ("train",), "validation": ("validation", "validate", "val"), "test": ("test",)}
YES_NO = ("yes", "no")


@dataclass(frozen=True)
class VqaRecord:
    """One question about one picture.

    Attributes:
        dataset: vqa-rad, slake or pathvqa.
        id: unique within a data set and split.
        image: path of the picture.
        question, answer: trimmed texts, neither empty.
        is_closed: whether the data set calls it closed; where it does not say, whether the answer is yes or no.
        split: train, validation or test.
        organ, modality: as the data set names them; None where it does not say.
        language: en or zh.
    """

    dataset: str
    id: str
    image: Path
    question: str
    answer: str
    is_closed: bool
    split: str
    organ: str | None
    modality: str | None
    language: str


class Pictured(Protocol):
    """A record that has an id of its own and a picture."""

    @property
    def id(self) -> str:
        """Unique in its file."""

    @property
    def image(self) -> Path:
        """Path of the picture."""


Made = TypeVar("Made", bound=Pictured)


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A row's text, trimmed; whole numbers count as text, since some answers are numbers.

    Raises:
        Fault: if it is missing, empty, or of another type.
    """
    if key not in row:
        raise Fault("missing field", f"there is no {key!r} among {sorted(row)}", f"add {key!r}")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Fault("wrong type", f"{key} is {value!r} ({type(value).__name__})", "give a text")
    text = str(value).strip()
    if not text:
        raise Fault(f"empty {key}", f"{key} is {value!r}", "write the text, or take the row out")
    return text


def choice_of(row: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    """A row's text, which must be one of a few.

    Raises:
        Fault: as `text_of`, or for a text outside `allowed`.
    """
    value = text_of(row, key)
    if value not in allowed:
        raise Fault(f"unknown {key}", f"{key} is {value!r}", f"allowed are {', '.join(allowed)}")
    return value


def is_yes_no(answer: str) -> bool:
    """Whether an answer is yes or no: what closed means where the data set does not say."""
    return answer.lower() in YES_NO


def picture_in(folder: Path, name: str) -> Path:
    """The path of a picture in a folder.

    Raises:
        Fault: if the name leads out of the folder.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise Fault(
            "image outside the folder", f"the image is {name!r}", "give a path relative to the image folder"
        )
    return folder / path


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file system takes names none."""
    try:
        return path.is_file()
    except OSError:
        return False


def collect(
    rows: Iterable[Row], read: Callable[[Mapping[str, Any]], Made], id_key: str, need_images: bool
) -> Reading[Made]:
    """Make records of rows; every row that cannot become one is kept as a damage, and a warning says so.

    Args:
        rows: from `read_rows`.
        read: makes a row's record, or raises `Fault`.
        id_key: the field that names a row in damages.
        need_images: whether a picture that does not exist is a damage.
    """
    records: list[Made] = []
    broken: list[Damage] = []
    first_rows: dict[str, int] = {}
    is_there: dict[Path, bool] = {}

    def read_whole(value: Any, number: int) -> Made:
        if not isinstance(value, Mapping):
            raise Fault("not an object", f"the row is {value!r:.40}", "write an object {...} for every row")
        record = read(value)
        if record.id in first_rows:
            raise Fault(
                "duplicate id", f"row {first_rows[record.id]} has it too", "give every row an id of its own"
            )
        first_rows[record.id] = number
        if need_images and record.image not in is_there:
            is_there[record.image] = is_file(record.image)
        if need_images and not is_there[record.image]:
            raise Fault(
                "missing image",
                f"there is no {record.image}",
                "put it there, or read the texts alone with need_images=False",
            )
        return record

    for number, value in rows:
        if isinstance(value, Damage):
            broken.append(value)
            continue
        try:
            records.append(read_whole(value, number))
        except Fault as fault:
            name = str(value.get(id_key, "")) if isinstance(value, Mapping) else ""
            broken.append(damage(number, name, fault))
    if broken:
        warnings.warn(
            f"{len(broken)} of the rows are broken and not among the {len(records)} records: see "
            f"damage_table(reading.broken). The first: {broken[0]}",
            stacklevel=3,
        )
    return Reading(tuple(records), tuple(broken))


def split_files(folder: Path, pattern: str) -> dict[str, Path]:
    """Files of the splits that a folder has, by our names of the splits.

    Args:
        folder: where to look.
        pattern: the file's name with {split} where the release writes the split, e.g. "pvqa_{split}.json".
    """
    found = {}
    for split, names in SPLIT_FILES.items():
        paths = [folder / pattern.format(split=name) for name in names]
        there = [path for path in paths if path.is_file()]
        if there:
            found[split] = there[0]
    return found


def join(readings: Iterable[Reading]) -> Reading:
    """Several readings as one; damages keep the row numbers of their own files."""
    parts = list(readings)
    return Reading(
        tuple(record for part in parts for record in part.records),
        tuple(one for part in parts for one in part.broken),
    )


def count_records(records: Iterable[VqaRecord]) -> pd.DataFrame:
    """How many pictures and questions each data set and split has, in the columns of the paper's Table 8.

    Splits keep our names (the table writes val for validation), data sets theirs.
    """
    rows = [
        (record.dataset, record.split, str(record.image), record.is_closed)
        for record in sorted(records, key=lambda record: (record.dataset, SPLITS.index(record.split)))
    ]
    frame = pd.DataFrame(rows, columns=["dataset", "split", "image", "is_closed"])
    grouped = frame.groupby(["dataset", "split"], sort=False)
    counts = grouped.agg(
        images=("image", "nunique"), question_answer_pairs=("image", "size"), closed_form=("is_closed", "sum")
    )
    counts["open_form"] = counts.question_answer_pairs - counts.closed_form
    return counts.astype(int).reset_index()
