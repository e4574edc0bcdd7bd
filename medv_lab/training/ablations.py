"""The training ablations: a grid of arms and seeds, its results folder and its tables.

A results folder has
    cells/ARM-EQUAL-SEED.json   one cell: scores, seconds, digest of its recipe, manifest
    table.csv                   arms in rows: mean over seeds and 95 % interval of every score
    differences.csv             every arm minus ours, paired by seed

A cell whose digest is the recipe's is not run again. A cell is written when it is done, so a run that is killed loses
the cell in work, and of that only the stage in work (see `cells`).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medv_lab.metrics.intervals import Interval, seed_interval
from medv_lab.store import replace_text
from medv_lab.training.cells import Workshop
from medv_lab.training.pipelines import OURS, Arm, make_arms


def run_ablations(
    arms: Sequence[Arm], seeds: Iterable[int], workshop: Workshop, folder: Path, *, rerun: bool = False
) -> list[dict[str, Any]]:
    """Run what is missing of a grid, all arms of one seed before the next, and write the tables.

    Args:
        arms, seeds: the grid.
        workshop: trains and scores.
        folder: of results.
        rerun: train and score every cell anew, shared stages too, and replace what is there.

    Returns:
        The cells of the grid.
    """
    cells = []
    for seed in seeds:
        for arm in arms:
            path = cell_path(folder, arm, seed)
            stored = None if rerun else _read(path)
            if stored is None or stored["digest"] != workshop.digest(arm, seed):
                workshop.log(f"{arm.name}, equal in {arm.equal}, seed {seed}: {arm.steps} steps")
                stored = workshop.run(arm, seed, fresh=rerun)
                replace_text(path, json.dumps(stored, indent=1) + "\n")
                write_tables(folder)
            workshop.log(f"{arm.name}, equal in {arm.equal}, seed {seed}: {brief(stored)}")
            cells.append(stored)
    return cells


def cell_path(folder: Path, arm: Arm, seed: int) -> Path:
    """Where a cell is kept."""
    return folder / "cells" / f"{arm.name}-{arm.equal}-{seed}.json"


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """All cells of a results folder, in the order of the grid.

    Raises:
        ValueError: if there is none.
    """
    names = {(arm.name, arm.equal): place for place, arm in enumerate(make_arms())}
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "cells").glob("*.json")]
    if not cells:
        raise ValueError(f"{folder.name} has no cells; run `medv ablations --output` with it")
    return sorted(cells, key=lambda c: (names.get((c["arm"], c["equal"]), len(names)), c["seed"]))


def brief(cell: Mapping[str, Any]) -> str:
    """The main scores of a cell in one line."""
    names = ("closed", "open", "facts", "duplicates")
    return ", ".join(f"{name} {cell['scores'][name]:.1f}" for name in names)


def tabulate(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Mean over seeds and 95 % interval of every score.

    Returns:
        Columns arm, equal, score, seeds, steps, mean, low, high, in the order of the cells.
    """
    return pd.DataFrame(
        [
            {"arm": arm, "equal": equal, "score": name, "seeds": len(own), "steps": own[0]["steps"]}
            | _row(seed_interval([cell["scores"][name] for cell in own]))
            for (arm, equal), own in _by_arm(cells).items()
            for name in own[0]["scores"]
        ]
    )


def compare_arms(cells: Sequence[Mapping[str, Any]], base: str = OURS) -> pd.DataFrame:
    """Every arm minus a base arm in every score that both have, over the seeds that both have.

    Args:
        cells: from `read_cells`.
        base: name of the arm to compare with.

    Returns:
        Columns arm, base, equal, score, seeds, mean, low, high; the base is equal in the same (steps or compute) as
        the arm, or in steps where it has no such cells.
    """
    by_arm = _by_arm(cells)
    rows = []
    for (arm, equal), own in by_arm.items():
        others = by_arm.get((base, equal)) or by_arm.get((base, "steps"), [])
        scores = {cell["seed"]: cell["scores"] for cell in others}
        pairs = [(cell["scores"], scores[cell["seed"]]) for cell in own if cell["seed"] in scores]
        if arm == base or not pairs:
            continue
        for name in (name for name in pairs[0][0] if name in pairs[0][1]):
            found = seed_interval([one[name] - other[name] for one, other in pairs])
            rows.append(
                {"arm": arm, "base": base, "equal": equal, "score": name, "seeds": len(pairs)} | _row(found)
            )
    return pd.DataFrame(rows, columns=["arm", "base", "equal", "score", "seeds", "mean", "low", "high"])


def write_tables(folder: Path) -> None:
    """Write table.csv and differences.csv from the cells."""
    cells = read_cells(folder)
    for name, table in (("table", tabulate(cells)), ("differences", compare_arms(cells))):
        replace_text(
            folder / f"{name}.csv", table.to_csv(index=False, float_format="%.3f", lineterminator="\n")
        )


def check_against(table: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    """Whether a cell's main scores lie in the intervals of a table, widened to seeds that are yet to be drawn.

    The interval of a mean over n seeds says where the mean lies; one more seed lies in a wider one, by sqrt(n + 1).

    Returns:
        Columns score, value, low, high, is_within.
    """
    own = table[(table.arm == cell["arm"]) & (table.equal == cell["equal"])].set_index("score")
    rows = []
    for name in ("closed", "open", "facts"):
        row = own.loc[name]
        half = (row.high - row["mean"]) * math.sqrt(row.seeds + 1)
        value, low, high = cell["scores"][name], row["mean"] - half, row["mean"] + half
        rows.append(
            {"score": name, "value": value, "low": low, "high": high, "is_within": low <= value <= high}
        )
    return pd.DataFrame(rows)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _by_arm(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["arm"], cell["equal"]), []).append(cell)
    return found


def _row(interval: Interval) -> dict[str, float]:
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high}
