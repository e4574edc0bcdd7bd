"""Our measurements beside the paper's tables: results folders read into the columns of the published tables.

Each function gives one row per system or setting, with the columns of its table that were measured, their intervals as
NAME_low and NAME_high, and `source`; no rows where the results folder has none.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from medv_lab.paper.exhibits import measured_source

JUDGE = "phantom facts"
SCORES = {number: f"table{number}/scores.csv" for number in (1, 2, 3)}
ABLATIONS = "ablations/table.csv"
SWEEPS = "studies/steps/summary.csv"
COUNTS = "table8/counts.csv"
RECIPES = "embedded/manifest.json"  # in the package, with the checkpoint that they made
GROUPS = {  # of the phantom benchmark: columns of Table 1
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
    """Read Table 1's columns: relative scores of our systems on phantoms by the judge that knows the facts."""
    scores = _read(results, SCORES[1])
    chosen = scores[scores.judge == JUDGE]
    rows = [
        {"model": system, **_cells(own.set_index("group"), GROUPS)}
        for system, own in chosen.groupby("system", sort=False)
    ]
    return _frame(rows, results, SCORES[1], ["model", *GROUPS.values()])


def measured_vqa(results: Path) -> pd.DataFrame:
    """Read token recall and accuracy on three benchmarks of phantoms, NAME_open and NAME_closed, beside Table 2."""
    scores = _read(results, SCORES[2])
    names = {f"{one} {kind}": f"{one}_{kind}" for one in BENCHMARKS for kind in ("open", "closed")}
    rows = [
        {"model": system, **_cells(own.set_index(own.benchmark + " " + own.kind), names)}
        for system, own in scores.groupby("system", sort=False)
    ]
    return _frame(rows, results, SCORES[2], ["model", *names.values()])


def measured_steps(results: Path) -> pd.DataFrame:
    """Read Table 3's columns: time, length and score against the number of steps, over all questions."""
    scores = _read(results, SCORES[3])
    chosen = scores[scores.group == "all"]
    rows = []
    for (system, steps), own in chosen.groupby(["system", "steps"], sort=False, dropna=False):
        name = system if pd.isna(steps) else f"{system}-{int(steps)}"
        cells = _cells(own.set_index("quantity"), QUANTITIES)
        rows.append({"model": name, "sampling_steps": steps, **cells})
    return _frame(rows, results, SCORES[3], ["model", "sampling_steps", *QUANTITIES.values()])


def measured_pipelines(results: Path) -> pd.DataFrame:
    """Read the training ablations beside Table 4: fact score, open recall, closed accuracy, means over seeds."""
    table = _read(results, ABLATIONS).rename(columns={"mean": "estimate"})
    names = {"facts": "facts", "open": "phantoms_open", "closed": "phantoms_closed"}
    rows = [
        {"model": f"{arm} (equal {equal})", **_cells(own.set_index("score"), names)}
        for (arm, equal), own in table.groupby(["arm", "equal"], sort=False)
    ]
    return _frame(rows, results, ABLATIONS, ["model", *names.values()])


def measured_inference(results: Path) -> pd.DataFrame:
    """Read L, Z and B varied one at a time, with the fact score of descriptions, beside Table 5."""
    table = _read(results, SWEEPS)
    rows = []
    for own in table.itertuples():
        manifest = json.loads((results / SWEEPS).with_name("manifest.json").read_text(encoding="utf-8"))
        asked = manifest["settings"]["arms"][own.arm]["settings"]
        length, block, steps = (asked[name] for name in ("gen_length", "block_length", "steps"))
        rows.append(
            {
                "group": _GROUPS_OF_TABLE_5[own.group],
                "varied": own.group,
                "L": length,
                "B": block,
                "Z": steps,
                "steps_per_block": steps * block // length,
                "fact_score": own.score,
                "fact_score_low": own.score_low,
                "fact_score_high": own.score_high,
            }
        )
    frame = _frame(rows, results, SWEEPS, ["group", "varied", "L", "B", "Z", "steps_per_block", "fact_score"])
    return frame.sort_values("group", kind="stable")


def own_recipes(results: Path) -> pd.DataFrame:
    """Read Table 6's settings of the embedded checkpoint's stages, as the manifest beside it has them."""
    manifest = json.loads((files("medv_lab") / RECIPES).read_text(encoding="utf-8"))
    stages = {column: manifest["settings"].get(name, {}) for column, name in _OWN_STAGES.items()}
    rows = [
        {"setting": setting, **{column: _text(stage.get(name)) for column, stage in stages.items()}}
        for setting, name in _OWN_SETTINGS.items()
    ]
    given = pd.DataFrame(rows).dropna(subset=list(stages), how="all")
    return given.assign(source=f"ours {RECIPES}")


def counted_data(results: Path) -> pd.DataFrame:
    """Read Table 8's columns, counted by our readers in the released files that were there."""
    return _read(results, COUNTS).assign(source=measured_source(results / COUNTS, results))


_COLUMNS = (  # that are read here
    *("system", "judge", "group", "benchmark", "kind", "steps", "quantity", "estimate", "low", "high"),
    *("arm", "equal", "score", "mean"),
    *("dataset", "split", "images", "question_answer_pairs", "closed_form", "open_form"),
)
_GROUPS_OF_TABLE_5 = {"L": "A", "Z": "B", "B": "C"}
_OWN_STAGES = {"alignment": "alignment", "md_sft": "instruct", "sd_sft_phantoms": "vqa"}
_OWN_SETTINGS = {  # of Table 6: ours of the same meaning
    "scheduler": "schedule",
    "global_batch_size": "batch_size",
    "model_max_length": "max_length",
    "language_tower_lr": "language_model_lr",
    "projector_lr": "projector_lr",
    "vision_tower_lr": "vision_tower_lr",
    "epochs": "epochs",
    "steps": "steps",
}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _read(results: Path, name: str) -> pd.DataFrame:
    """Read a file of scores; without rows, but with its columns, where it is not there."""
    path = results / name
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(_COLUMNS))


def _cells(scores: pd.DataFrame, names: Mapping[str, str]) -> dict[str, Any]:
    """Return estimate, low and high of each named row that is there, under the name of a table's column."""
    return {
        f"{column}{ending}": float(scores.at[row, field])
        for row, column in names.items()
        if row in scores.index
        for ending, field in (("", "estimate"), ("_low", "low"), ("_high", "high"))
    }


def _frame(rows: list[dict[str, Any]], results: Path, name: str, columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    return frame.assign(source=measured_source(results / name, results))
