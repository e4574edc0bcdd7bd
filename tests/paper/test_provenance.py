"""Every number of every figure and table comes from a published table or from results that a manifest stands for.

The committed csv files are walked cell by cell: a number must stand in the file that its row names as source. What is
read from files now must be what was committed.
"""

import io
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.paper.exhibits import read_data
from medv_lab.paper.figures import EXHIBITS
from medv_lab.paper.gallery import MEASURED, find_manifests, runs_in
from medv_lab.studies.panels import read_panels

ROOT = Path(__file__).parents[2]
FIGURES, RESULTS = ROOT / "figures", ROOT / "results"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
MANIFEST_FIELDS = {"versions", "commit", "settings", "model"}


def numbers(data: pd.DataFrame, row: int) -> dict[str, float]:
    cells = data.loc[row].drop("source").dropna()
    if "steps_per_block" in cells:  # follows from the three beside it
        assert cells.pop("steps_per_block") == cells.Z * cells.B // cells.L
    return {name: float(value) for name, value in cells.items() if pd.api.types.is_number(value)}


@cache
def numbers_in(path: Path) -> frozenset[float]:
    """All numbers that a results file holds; of answers, the lengths and settings that their manifest gives too."""
    if path.suffix == ".npz":
        table = SampleTrace.load(path).to_frame()
        cells = table.select_dtypes("number").to_numpy(float).ravel()
        return frozenset(cells[np.isfinite(cells)].tolist())
    texts = [one.read_text() for one in (path, *find_manifests(path))]
    return frozenset(float(match) for text in texts for match in NUMBER.findall(text))


def check_published(data: pd.DataFrame, row: int, name: str) -> None:
    table = pd.read_csv(io.StringIO((files("medv_lab.paper") / "tables" / name).read_text()))
    texts = {value for value in data.loc[row] if isinstance(value, str)}
    own = [
        frozenset(pd.to_numeric(line, errors="coerce").dropna())
        for _, line in table.iterrows()
        if {value for value in line if isinstance(value, str)} & texts
    ]
    found = set(numbers(data, row).values())
    assert (found and any(found <= line for line in own)) or not found, (row, found)


def check_measured(data: pd.DataFrame, row: int, name: str) -> None:
    path = RESULTS / name
    assert path.is_file(), name
    assert find_manifests(path) or path.suffix == ".npz", f"{name} has no manifest"
    tolerance = 1e-6 if path.suffix == ".npz" else 1e-9  # a trace holds single precision
    missing = {
        column: value
        for column, value in numbers(data, row).items()
        if not any(np.isclose(value, known, rtol=tolerance, atol=0) for known in numbers_in(path))
    }
    assert not missing, (row, name, missing)


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_every_number_stands_in_the_file_that_its_row_names(exhibit):
    data = read_data(FIGURES / f"{exhibit.name}.csv")
    assert len(data) and data.source.notna().all()
    for row, source in data.source.items():
        kind, name = source.split(maxsplit=1)
        if kind == "published":
            check_published(data, row, name)
        elif kind in MEASURED:
            check_measured(data, row, name)
        else:
            assert (kind, name) == ("ours", "embedded/manifest.json")


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_what_was_committed_is_what_is_read_now(exhibit):
    assert all(path.is_file() for path in exhibit.output_files(FIGURES))
    committed = FIGURES / f"{exhibit.name}.csv"
    fresh = exhibit.collect(RESULTS).to_csv(index=False, lineterminator="\n")
    assert committed.read_text().split("\n", 1)[1] == fresh, f"{exhibit.name} is old: run 'medv figures'"


def test_manifests_record_what_made_the_results():
    sources = {source for one in EXHIBITS for source in read_data(FIGURES / f"{one.name}.csv").source}
    for name in (source.split(maxsplit=1)[1] for source in sources if source.startswith(MEASURED)):
        path = RESULTS / name
        if path.suffix == ".npz":
            manifests = [SampleTrace.load(path).manifest]
        else:
            manifests = [json.loads(found.read_text()) for found in find_manifests(path)]
        records = runs_in(manifests, path)
        assert records, name
        assert all(record.keys() >= MANIFEST_FIELDS for record in records), name


def test_marks_and_words_of_panels_are_those_of_the_answers():
    answers = {(one.file, one.question.text, one.prediction.text) for one in read_panels(RESULTS / "panels")}
    for exhibit in EXHIBITS:
        data = read_data(FIGURES / f"{exhibit.name}.csv")
        if "marks" not in data:
            continue
        for row in data[data.answer.notna()].itertuples():
            file = row.source.rpartition("/")[2]
            assert (file, row.question, row.answer) in answers
            assert row.words == len(row.answer.split())
            assert all(0 <= start < end <= len(row.answer) for start, end, _ in json.loads(row.marks))


def test_a_number_from_nowhere_is_seen():
    data = read_data(FIGURES / "fig11_repetition_steps.csv")
    row = data.index[data.part == "Z"][0]
    data.loc[row, "estimate"] += 0.123456
    with pytest.raises(AssertionError):
        check_measured(data, row, data.source[row].split(maxsplit=1)[1])
    table = read_data(FIGURES / "table1_open_ended.csv")
    table.loc[0, "cxr"] = 99.9
    with pytest.raises(AssertionError):
        check_published(table, 0, "table1_open_ended.csv")
