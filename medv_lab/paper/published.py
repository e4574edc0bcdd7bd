"""Numbers of the paper's tables, as published (arXiv 2508.01617), read from the CSV files of `tables/`."""

from importlib.resources import files

import pandas as pd

from medv_lab.paper.columns import TABLE_COLUMNS

TABLES = {
    1: "table1_open_ended",
    2: "table2_vqa",
    3: "table3_length_time",
    4: "table4_training_pipeline",
    5: "table5_inference",
    6: "table6_training_setup",
    8: "table8_dataset_statistics",
}
_TYPES = {"text": "str", "number": "float64", "key": "Int64", "count": "Int64"}


def load_table(number: int) -> pd.DataFrame:
    """One published table, typed by its columns' kinds; empty cells, which the paper does not report, are missing.

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
    if list(frame) != [column.name for column in columns]:
        raise ValueError(f"table {number} has the columns {list(frame)}; declared are {columns}")
    frame.attrs["provenance"] = f"published, Table {number} of arXiv 2508.01617"
    frame.attrs["origins"] = {
        column.name: f"Table {number}, {column.header}: {column.meaning}".removesuffix(": ")
        for column in columns
    }
    return frame


def published_value(number: int, row: str, column: str) -> float | None:
    """One number of a table whose first column names its rows; None where the paper reports none.

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
    """What a row of numbers from a published table names as its source."""
    return f"published {TABLES[number]}.csv"
