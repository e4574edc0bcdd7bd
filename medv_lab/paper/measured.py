"""Our measurements beside the paper's tables: results folders read into the columns of the published tables.

Each function gives one row a system or setting, with the columns of its table that were measured, their intervals as
NAME_low and NAME_high, and `source`; no rows where the results folder has none.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from medv_lab.paper.exhibits import measured_source

OPEN_ENDED_INPUTS = ("table1/**/*",)
VQA_INPUTS = ("table2/**/*", "phantoms/*/scores.csv")
_GROUPS = {
    "conversation": "conversation",
    "detailed_description": "description",
    "chest x-ray": "cxr",
    "brain mri": "mri",
    "histology": "histology",
    "gross pathology": "gross",
    "abdominal ct": "ct",
    "all": "overall",
}


def measured_open_ended(results: Path) -> pd.DataFrame:
    """Table 1's columns: relative scores of the small world's systems by the phantom fact judge."""
    rows = []
    for name, path, scores in _scores(results / "table1"):
        chosen = scores[(scores.judge == "facts") & (scores.order == "reference first")]
        by_group = chosen.set_index("group")
        rows.append(
            {"model": name, **_intervals(by_group, _GROUPS), "source": measured_source(path, results)}
        )
    return _frame(rows, ["model", *_GROUPS.values()])


def measured_vqa(results: Path) -> pd.DataFrame:
    """Table 2's place: accuracy and recall on the phantom benchmark, since no real data set is the small world's."""
    rows = []
    for path in sorted((results / "phantoms").glob("*/scores.csv")):
        scores = pd.read_csv(path)
        totals = scores[scores.group == "all"].set_index("kind")
        values = _intervals(totals, {"open": "phantoms_open", "closed": "phantoms_closed"})
        rows.append({"model": path.parent.name, **values, "source": measured_source(path, results)})
    return _frame(rows, ["model", "phantoms_open", "phantoms_closed"])


def _scores(folder: Path) -> Iterator[tuple[str, Path, pd.DataFrame]]:
    """(system, file, scores) of every run whose scores-DIGEST.csv lies beside the manifest that names it."""
    for path in sorted(folder.rglob("scores-*.csv")):
        manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
        digest = path.stem.removeprefix("scores-")
        yield manifest[digest]["name"], path, pd.read_csv(path)


def _intervals(scores: pd.DataFrame, names: Mapping[str, str]) -> dict[str, float]:
    """Score, low and high of each group that is there, under the names of a table's columns."""
    return {
        f"{column}{suffix}": float(scores.at[group, field])
        for group, column in names.items()
        if group in scores.index
        for suffix, field in (("", "score"), ("_low", "low"), ("_high", "high"))
    }


def _frame(rows: list[dict], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame if len(frame) else pd.DataFrame(columns=[*columns, "source"])
