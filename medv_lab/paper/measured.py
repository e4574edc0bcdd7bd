"""Our measurements beside the paper's tables: results folders read into the columns of the published tables.

Each function gives one row a system or setting, with the columns of its table that were measured, their intervals as
NAME_low and NAME_high, and `source`; no rows where the results folder has none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medv_lab.paper.exhibits import measured_source

JUDGE = "phantom facts"
SCORES = {number: f"table{number}/scores.csv" for number in (1, 2, 3)}
GROUPS = {  # of the small world's benchmark: columns of Table 1
    "conversation": "conversation",
    "detailed_description": "description",
    "chest x-ray": "cxr",
    "brain mri": "mri",
    "histology": "histology",
    "gross pathology": "gross",
    "abdominal ct": "ct",
    "all": "overall",
}
BENCHMARKS = ("radiology", "tissue", "compositional")
QUANTITIES = {
    "seconds_per_question": "seconds_per_question",
    "words_per_question": "words_per_question",
    "seconds_per_word": "seconds_per_word",
    "relative": "overall",
}


def measured_open_ended(results: Path) -> pd.DataFrame:
    """Table 1's columns: relative scores of the small world's systems by the judge that knows the facts."""
    scores = _read(results, SCORES[1])
    chosen = scores[scores.judge == JUDGE]
    rows = [
        {"model": system, **_cells(own.set_index("group"), GROUPS)}
        for system, own in chosen.groupby("system", sort=False)
    ]
    return _frame(rows, results, SCORES[1], ["model", *GROUPS.values()])


def measured_vqa(results: Path) -> pd.DataFrame:
    """Table 2's place: token recall and accuracy on three benchmarks of phantoms, NAME_open and NAME_closed."""
    scores = _read(results, SCORES[2])
    names = {f"{one} {kind}": f"{one}_{kind}" for one in BENCHMARKS for kind in ("open", "closed")}
    rows = [
        {"model": system, **_cells(own.set_index(own.benchmark + " " + own.kind), names)}
        for system, own in scores.groupby("system", sort=False)
    ]
    return _frame(rows, results, SCORES[2], ["model", *names.values()])


def measured_steps(results: Path) -> pd.DataFrame:
    """Table 3's columns: time, length and score against the number of steps, over all questions."""
    scores = _read(results, SCORES[3])
    chosen = scores[scores.group == "all"]
    rows = []
    for (system, steps), own in chosen.groupby(["system", "steps"], sort=False, dropna=False):
        name = system if pd.isna(steps) else f"{system}-{int(steps)}"
        cells = _cells(own.set_index("quantity"), QUANTITIES)
        rows.append({"model": name, "sampling_steps": steps, **cells})
    return _frame(rows, results, SCORES[3], ["model", "sampling_steps", *QUANTITIES.values()])


def _read(results: Path, name: str) -> pd.DataFrame:
    """A file of scores; without rows, but with its columns, where it is not there."""
    path = results / name
    columns = [
        "system",
        "judge",
        "group",
        "benchmark",
        "kind",
        "steps",
        "quantity",
        "estimate",
        "low",
        "high",
    ]
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=columns)


def _cells(scores: pd.DataFrame, names: Mapping[str, str]) -> dict[str, Any]:
    """Estimate, low and high of each row that is there, under the name of a table's column; scores by row name."""
    return {
        f"{column}{ending}": float(scores.at[row, field])
        for row, column in names.items()
        if row in scores.index
        for ending, field in (("", "estimate"), ("_low", "low"), ("_high", "high"))
    }


def _frame(rows: list[dict[str, Any]], results: Path, name: str, columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    return frame.assign(source=measured_source(results / name, results))
