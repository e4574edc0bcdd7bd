"""Numbers of the paper's tables, as published (arXiv 2508.01617), read from the CSV files of `tables/`."""

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


def load_table(number: int) -> pd.DataFrame:
    """One published table; empty cells, which the paper does not report, are NaN.

    `frame.attrs["provenance"]` names the table, for captions and file headers.

    Raises:
        ValueError: for a table that is not here (7 was not available).
    """
    if number not in TABLES:
        allowed = ", ".join(map(str, TABLES))
        raise ValueError(f"there is no table {number}; the tables {allowed} are here (7 was not available)")
    with (files("medv_lab.paper") / "tables" / f"{TABLES[number]}.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    frame.attrs["provenance"] = f"published, Table {number} of arXiv 2508.01617"
    return frame
