"""Our measurements beside the paper's tables: results folders read into the columns of the published tables.

Each function gives one row per system or setting, with the columns of its table that were measured, their intervals as
NAME_low and NAME_high, and `source`; descriptions have their controls last. All raise MissingResults where the results
folder has no such file.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pandas as pd

from medv_lab.metrics.scoring import SAYS_BOTH_NAME
from medv_lab.paper.exhibits import read_measured
from medv_lab.phantoms.reports import CONTROLS

JUDGE = "phantom facts"
STRICT = ", strict"  # behind a kind of questions, and then behind a system
SWEEPS = "studies/steps/summary.csv"
SWEEP_CONTROLS = "studies/steps/controls.csv"
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
_GROUPS_OF_TABLE_5 = {"L": "A", "Z": "B", "B": "C"}
_OWN_STAGES = {"alignment": "alignment", "md_sft": "instruct"}
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


def measured_open_ended(results: Path) -> pd.DataFrame:
    """Read Table 1's columns: relative scores of our systems on phantoms by the judge that knows the facts."""
    scores = _read_scores(results, 1)
    return _widen(scores[scores.judge == JUDGE], ["system"], "group", GROUPS)


def measured_vqa(results: Path) -> pd.DataFrame:
    """Read token recall and accuracy on three benchmarks of phantoms, NAME_open and NAME_closed, beside Table 2.

    A system's accuracy in whole words is a row of its own, "NAME, strict".
    """
    scores = _read_scores(results, 2)
    is_strict = scores.kind.str.endswith(STRICT)
    scores["model"] = scores.model.mask(is_strict, scores.model + STRICT)
    scores["part"] = scores.benchmark + "_" + scores.kind.str.removesuffix(STRICT)
    names = {f"{one}_{kind}": f"{one}_{kind}" for one in BENCHMARKS for kind in ("open", "closed")}
    return _widen(scores, ["model"], "part", names).sort_values(
        "source", key=lambda source: source.str.startswith("control"), kind="stable"
    )


def measured_steps(results: Path) -> pd.DataFrame:
    """Read Table 3's columns against the number of steps, over all questions, and the score of descriptions alone."""
    scores = _read_scores(results, 3)
    names = {name: name for name in ("seconds_per_question", "words_per_question", "seconds_per_word")}
    names |= {"relative": "overall", "relative of descriptions": "description"}
    is_described = (scores.group == "detailed_description") & (scores.quantity == "relative")
    scores.loc[is_described, "quantity"] += " of descriptions"
    table = _widen(scores[is_described | (scores.group == "all")], ["system", "steps"], "quantity", names)
    steps = table.steps.astype("Int64")
    named = table.system.where(steps.isna(), table.system + "-" + steps.astype(str))
    return table.assign(model=named, sampling_steps=steps)


def measured_pipelines(results: Path) -> pd.DataFrame:
    """Read the training ablations beside Table 4: fact score, open recall, closed accuracy, means over seeds."""
    scores = read_measured(results, "ablations/table.csv", "medv ablations").rename(
        columns={"mean": "estimate"}
    )
    names = {"facts": "facts", "open": "phantoms_open", "closed": "phantoms_closed"}
    table = _widen(scores, ["arm", "equal"], "score", names)
    return table.assign(model=table.arm + " (equal " + table.equal + ")")


def measured_inference(results: Path) -> pd.DataFrame:
    """Read L, Z and B varied one at a time, with the fact score of descriptions, beside Table 5."""
    table = read_measured(results, SWEEPS, "medv study steps")
    table = table[table.group.isin(list(_GROUPS_OF_TABLE_5))].copy()
    manifest = json.loads((results / SWEEPS).with_name("manifest.json").read_text(encoding="utf-8"))
    for column, name in (("L", "gen_length"), ("B", "block_length"), ("Z", "steps")):
        table[column] = [manifest["settings"]["arms"][arm]["settings"][name] for arm in table.arm]
    table = table.assign(
        varied=table.group,
        group=table.group.map(_GROUPS_OF_TABLE_5),
        steps_per_block=table.Z * table.B // table.L,
    ).sort_values("group", kind="stable")
    controls = read_measured(results, SWEEP_CONTROLS, "medv study steps")
    controls = controls.assign(varied=controls.control, source=_as_control(controls.source))
    table = pd.concat([table, controls], ignore_index=True)
    return table.rename(columns=lambda name: name.replace("score", "fact_score"))


def own_recipes(results: Path) -> pd.DataFrame:
    """Read Table 6's settings of the embedded checkpoint's stages, as the manifest beside it has them."""
    stages = json.loads((files("medv_lab") / RECIPES).read_text(encoding="utf-8"))["settings"]
    rows = [
        {"setting": setting, **{column: stages[stage].get(name) for column, stage in _OWN_STAGES.items()}}
        for setting, name in _OWN_SETTINGS.items()
    ]
    table = pd.DataFrame(rows, dtype=object).dropna(subset=list(_OWN_STAGES), how="all")
    return table.map(str, na_action="ignore").assign(source=f"ours {RECIPES}")


def counted_data(results: Path) -> pd.DataFrame:
    """Read Table 8's columns, counted by our readers in the released files that were there."""
    return read_measured(results, "table8/counts.csv", "medv data count")


def _read_scores(results: Path, number: int) -> pd.DataFrame:
    scores = read_measured(results, f"table{number}/scores.csv", "medv evaluate tables")
    is_control = scores.system.isin([*CONTROLS, SAYS_BOTH_NAME])
    source = scores.source.mask(is_control, _as_control(scores.source))
    return scores.assign(model=scores.system, source=source)


def _as_control(source: pd.Series) -> pd.Series:
    return source.str.replace("measured", "control", n=1)


def _widen(scores: pd.DataFrame, by: list[str], key: str, names: Mapping[str, str]) -> pd.DataFrame:
    """Make one row per `by`: estimate, low and high of each key in `names`, under the name of a table's column."""
    known = scores[scores[key].isin(names)]
    rows = []
    for _, own in known.groupby(by, sort=False, dropna=False):
        row = own.iloc[0].to_dict()
        for one in own.itertuples():
            column = names[getattr(one, key)]
            row |= {column: one.estimate, f"{column}_low": one.low, f"{column}_high": one.high}
        rows.append(row)
    return pd.DataFrame(rows)
