"""Numbers of the paper's tables, as published (arXiv 2508.01617), and what each column of them means.

The CSV files of `tables/` hold the numbers; `TABLE_COLUMNS` declares every column.
"""

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

TABLES = {
    1: "table1_open_ended",
    2: "table2_vqa",
    3: "table3_length_time",
    4: "table4_training_pipeline",
    5: "table5_inference",
    6: "table6_training_setup",
    8: "table8_dataset_statistics",
}
RELATIVE = "mean of candidate / reference judge scores x 100"
RECALL = "token recall, percent"
ACCURACY = "accuracy, percent"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: in the CSV file.
        header: in print.
        kind: "text" for names, "whole" for whole numbers, "number" for measurements.
        better: "high", "low", or "" where neither is.
        digits: decimals of measurements in print, as in the paper.
        meaning: definition and unit, for captions.
    """

    name: str
    header: str
    kind: str = "number"
    better: str = ""
    digits: int = 3
    meaning: str = ""

    @property
    def is_number(self) -> bool:
        """True where cells are numbers."""
        return self.kind != "text"


def _score(name: str, header: str, meaning: str = RELATIVE, digits: int = 3) -> Column:
    return Column(name, header, better="high", digits=digits, meaning=meaning)


def _text(name: str) -> Column:
    return Column(name, name.replace("_", " "), "text")


def _whole(name: str, header: str, meaning: str) -> Column:
    return Column(name, header, "whole", meaning=meaning)


def _vqa(name: str, header: str) -> tuple[Column, Column]:
    open_ = _score(f"{name}_open", f"{header} open", RECALL, 2)
    return open_, _score(f"{name}_closed", f"{header} closed", ACCURACY, 2)


TABLE_COLUMNS: dict[int, tuple[Column, ...]] = {
    1: (
        _text("model"),
        _score("conversation", "conversation"),
        _score("description", "description"),
        _score("cxr", "CXR"),
        _score("mri", "MRI"),
        _score("histology", "histology"),
        _score("gross", "gross"),
        _score("ct", "CT"),
        _score("overall", "overall"),
    ),
    2: (_text("model"), *_vqa("vqa_rad", "VQA-RAD"), *_vqa("slake", "SLAKE"), *_vqa("pathvqa", "PathVQA")),
    3: (
        _text("model"),
        Column("seconds_per_question", "s / question", better="low", meaning="wall time"),
        Column("words_per_question", "words / question", meaning="length of an answer"),
        Column("seconds_per_word", "s / word", better="low", meaning="wall time over words"),
        _whole("sampling_steps", "Z", "sampling steps; none for models that write from left to right"),
        _score("overall", "overall"),
    ),
    4: (
        _text("model"),
        _score("open_ended_overall", "open-ended"),
        *_vqa("vqa_rad", "VQA-RAD"),
        *_vqa("slake", "SLAKE"),
    ),
    5: (
        _text("group"),
        _text("varied"),
        _whole("L", "L", "generation length"),
        _whole("B", "B", "block length"),
        _whole("Z", "Z", "sampling steps"),
        _whole("steps_per_block", "Z B / L", "steps per block"),
        _score("overall", "overall"),
    ),
    6: tuple(
        _text(name)
        for name in ("setting", "alignment", "md_sft", "sd_sft_vqa_rad", "sd_sft_slake", "sd_sft_pathvqa")
    ),
    8: (
        _text("dataset"),
        _text("split"),
        _whole("images", "images", "pictures that questions are about"),
        _whole("question_answer_pairs", "question answer pairs", "questions"),
        _whole("closed_form", "closed form", "yes / no and choice questions"),
        _whole("open_form", "open form", "other questions"),
    ),
}

_TYPES = {"text": "str", "number": "float64", "whole": "Int64"}


def load_table(number: int) -> pd.DataFrame:
    """Read one published table, typed by its columns' kinds; empty cells, which the paper does not report, are missing.

    `frame.attrs["provenance"]` names the table, for captions and file headers; `frame.attrs["origins"]` names the
    column of the paper's table for every column, and what it measures.

    Raises:
        ValueError: for a table that is not here (7 was not available).
    """
    if number not in TABLES:
        allowed = ", ".join(map(str, TABLES))
        raise ValueError(f"there is no table {number}; the tables {allowed} are here (7 was not available)")
    columns = TABLE_COLUMNS[number]
    with (files("medv_lab.paper") / "tables" / f"{TABLES[number]}.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, dtype={column.name: _TYPES[column.kind] for column in columns})
    frame.attrs["provenance"] = f"published, Table {number} of arXiv 2508.01617"
    frame.attrs["origins"] = {
        column.name: f"Table {number}, {column.header}: {column.meaning}".removesuffix(": ")
        for column in columns
    }
    return frame


def published_value(number: int, row: str, column: str) -> float | None:
    """Return one number of a table whose first column names its rows; None where the paper reports none.

    Raises:
        ValueError: for a table, row or column that is not there, or a column of text.
    """
    table = load_table(number)
    numeric = {one.name for one in TABLE_COLUMNS[number] if one.is_number}
    rows = table[table.iloc[:, 0] == row]
    if column not in numeric or len(rows) != 1:
        raise ValueError(
            f"table {number} has no single number at row {row!r}, column {column!r}; rows are "
            f"{', '.join(table.iloc[:, 0])}, columns {', '.join(sorted(numeric)) or 'of text only'}"
        )
    value = rows[column].iloc[0]
    return None if pd.isna(value) else float(value)


def published_source(number: int) -> str:
    """Return what a row of numbers from a published table names as its source."""
    return f"published {TABLES[number]}.csv"
