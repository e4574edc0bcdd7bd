"""The grid of the training ablations: arms and seeds run by any number of processes, read back and tabulated.

Cells are records of one store under a hash of all that decides them, so none is run twice, by whichever process or
machine. A results folder has
    store/                      the records, and which cells are in work
    cells/ARM-EQUAL-SEED.json   one cell: outcomes of all questions, seconds, digest of its recipe, manifest
    table.csv                   arms in rows: mean over seeds and questions of every score
    differences.csv             every arm minus ours (V2 minus V1 too, the twin of few pictures minus ours of few)
Both tables have the number of seeds, the value of each (by_seed), and 95 % intervals over seeds and questions
(`metrics.intervals.crossed_interval`: bounded, and none for fewer than 5 seeds).
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medv_lab.metrics.intervals import crossed_interval, next_seed_range
from medv_lab.store import ExclusiveAccess, InUseError, Store, content_key, replace_text
from medv_lab.training.ablations import AblationRunner
from medv_lab.training.pipelines import BASES, EQUAL, OURS, AblationArm, make_arms

MAIN_SCORES = ("closed", "open", "facts", "duplicates")
PAUSE = 10.0  # seconds until cells that other processes have in work are looked at again
Cell = Mapping[str, Any]
Outcomes = dict[tuple[str, str, str], dict[int, np.ndarray]]


def run_ablations(
    arms: Sequence[AblationArm],
    seeds: Iterable[int],
    runner: AblationRunner,
    folder: Path,
    *,
    rerun: bool = False,
) -> list[dict[str, Any]]:
    """Run what is missing of a grid, all arms of one seed before the next, and write cells and tables.

    A run that is killed loses the cell in work, and of that only the stage in work. Several processes of one machine
    may share a folder and a cache: what one has in work, a cell or a stage that several cells begin with, the others
    leave alone and come back to. All end when the whole grid is there.

    Args:
        arms, seeds: the grid.
        runner: trains and scores.
        folder: of results.
        rerun: train and score every cell anew, shared stages too, and replace what is there; for one process alone.

    Returns:
        The cells of the grid.

    Raises:
        ValueError: for a folder with cells that cannot be tabulated, before anything is run.
    """
    if any((folder / "cells").glob("*.json")):
        read_cells(folder)
    grid = [(arm, seed) for seed in seeds for arm in arms]
    cells: dict[tuple[AblationArm, int], dict[str, Any]] = {}
    with Store(folder / "store", "cells") as store:
        while waiting := [cell for cell in grid if cell not in cells]:
            for arm, seed in waiting:
                try:
                    cells[arm, seed] = _run_cell(arm, seed, runner, folder, store, rerun)
                except InUseError:
                    continue
            if not any(cell in cells for cell in waiting):
                time.sleep(PAUSE)
    write_tables(folder)  # another process may have written them while it knew fewer cells
    return [cells[cell] for cell in grid]


def _run_cell(
    arm: AblationArm, seed: int, runner: AblationRunner, folder: Path, store: Store, rerun: bool
) -> dict[str, Any]:
    """Take a cell from the store, or train and score it, and write its file.

    Raises:
        InUseError: if another process has it, or a stage of it, in work.
    """
    name, what = f"{arm.name}-{arm.equal}-{seed}", f"{arm.name}, equal in {arm.equal}, seed {seed}"
    path = folder / "cells" / f"{name}.json"
    if path.is_file():  # exported elsewhere, if this is a fresh clone of the repository
        there = json.loads(path.read_text(encoding="utf-8"))
        store.put(content_key(*(there[part] for part in ("arm", "equal", "seed", "digest")), 0), there)
    digest = runner.digest(arm, seed)

    def find(equal: str) -> tuple[str, dict[str, Any] | None]:
        """Return the key of the next record and the last record: none changes, so a rerun adds one, which stands."""
        store.refresh()
        record = None
        for number in count():
            key = content_key(arm.name, equal, seed, digest, number)
            if key not in store:
                return key, record
            record = {k: v for k, v in store[key].items() if k != "key"}

    if rerun or find(arm.equal)[1] is None:
        with ExclusiveAccess(folder / "store", name, patience=0):
            key, there = find(arm.equal)
            if rerun or there is None:
                # the longest chain is one recipe in both comparisons, so its one run stands in both
                # (and the manifest is that run's)
                others = (find(equal)[1] for equal in EQUAL if equal != arm.equal and not rerun)
                if same := next(filter(None, others), None):
                    store.put(key, same | {"equal": arm.equal})
                else:
                    runner.log(f"{what}: {arm.steps} steps")
                    store.put(key, runner.run(arm, seed, fresh=rerun))
    record = find(arm.equal)[1]

    # export it, lists of numbers in one line each
    text = re.sub(
        r"\[[-\d.,\s]+\]", lambda found: "".join(found.group().split()), json.dumps(record, indent=1) + "\n"
    )
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        replace_text(path, text)
        write_tables(folder)
    shown = (f"{score} {np.mean(record['outcomes'][score]):.1f}" for score in MAIN_SCORES)
    runner.log(f"{what}: {', '.join(shown)}")
    return record


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """Read all cells of a results folder, in the order of the grid.

    Raises:
        ValueError: if there is none, or one without outcomes of its questions.
    """
    names = {(arm.name, arm.equal): number for number, arm in enumerate(make_arms())}
    cells = {path: json.loads(path.read_text(encoding="utf-8")) for path in (folder / "cells").glob("*.json")}
    if not cells:
        raise ValueError(f"{folder.name} has no cells; run `medv ablations --output` with it")
    for path, cell in cells.items():
        if "outcomes" not in cell:
            raise ValueError(
                f"{path.name} has scores but no outcomes of its questions, as older versions wrote; delete such cells "
                "and run `medv ablations` again"
            )
    return sorted(cells.values(), key=lambda c: (names.get((c["arm"], c["equal"]), len(names)), c["seed"]))


def tabulate(cells: Sequence[Cell]) -> pd.DataFrame:
    """Tabulate mean and 95 % interval of every score.

    Returns:
        Columns arm, equal, score, seeds, questions, steps, mean, low, high, by_seed, in the order of the cells; steps
        after the text-only backbone, by_seed the mean of each seed in their order, as text.

    Raises:
        ValueError: if seeds of an arm were not asked the same number of questions.
    """
    steps = {(cell["arm"], cell["equal"]): cell["steps"] for cell in cells}
    rows = [
        {"arm": arm, "equal": equal, "score": score, "steps": steps[arm, equal]} | _summarise(seeds)
        for (arm, equal, score), seeds in _collect(cells).items()
    ]
    columns = ["arm", "equal", "score", "seeds", "questions", "steps", "mean", "low", "high", "by_seed"]
    return pd.DataFrame(rows, columns=columns)


def compare_arms(cells: Sequence[Cell], base: str | None = None) -> pd.DataFrame:
    """Subtract a base arm from other arms, paired by seed and question, in every score and seed that both have.

    Args:
        cells: from `read_cells`.
        base: name of the arm to compare all others with; by default every arm is compared with ours or with those
            that `BASES` names for it.

    Returns:
        Columns arm, base, equal, score, seeds, questions, mean, low, high, by_seed; the base is equal in the same
        (steps or compute) as the arm, or in steps where it has no such cells.

    Raises:
        ValueError: if an arm and its base were not asked the same number of questions.
    """
    outcomes, rows = _collect(cells), []
    for (arm, equal, score), seeds in outcomes.items():
        for against in BASES.get(arm, (OURS,)) if base is None else (base,):
            others = outcomes.get((against, equal, score)) or outcomes.get((against, "steps", score), {})
            common = [seed for seed in seeds if seed in others]
            if arm == against or not common:
                continue
            _check_lengths([*seeds.values(), *others.values()], f"{arm} and {against} in {score}")
            about = {"arm": arm, "base": against, "equal": equal, "score": score}
            rows.append(about | _summarise({seed: seeds[seed] - others[seed] for seed in common}))
    columns = ["arm", "base", "equal", "score", "seeds", "questions", "mean", "low", "high", "by_seed"]
    return pd.DataFrame(rows, columns=columns)


def _collect(cells: Sequence[Cell]) -> Outcomes:
    """Gather outcomes by arm, equal and score, and of each by seed."""
    found: Outcomes = {}
    for cell in sorted(cells, key=lambda cell: cell["seed"]):
        for score, values in cell["outcomes"].items():
            of_seeds = found.setdefault((cell["arm"], cell["equal"], score), {})
            of_seeds[cell["seed"]] = np.asarray(values, dtype=np.float64)
    order = list(dict.fromkeys((cell["arm"], cell["equal"]) for cell in cells))
    for (arm, _, score), of_seeds in found.items():
        _check_lengths(list(of_seeds.values()), f"seeds of {arm} in {score}")
    return dict(sorted(found.items(), key=lambda item: order.index(item[0][:2])))


def _check_lengths(outcomes: Sequence[np.ndarray], what: str) -> None:
    if len({len(values) for values in outcomes}) > 1:
        raise ValueError(
            f"{what} were scored on different questions; run `medv ablations` again for all of them"
        )


def _summarise(of_seeds: Mapping[int, np.ndarray]) -> dict[str, Any]:
    grid = np.stack(list(of_seeds.values()))  # (seeds, questions)
    by_seed = " ".join(f"{value:.3f}" for value in grid.mean(axis=1))
    found = crossed_interval(grid)
    ends = {"mean": found.estimate, "low": found.low, "high": found.high}
    return {"seeds": grid.shape[0], "questions": grid.shape[1], **ends, "by_seed": by_seed}


def write_tables(folder: Path) -> None:
    """Write table.csv and differences.csv from the cells."""
    cells = read_cells(folder)
    for name, table in (("table", tabulate(cells)), ("differences", compare_arms(cells))):
        replace_text(
            folder / f"{name}.csv", table.to_csv(index=False, float_format="%.3f", lineterminator="\n")
        )


def check_against(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Tell whether a cell's main scores lie where one more seed would, going by the seeds of a table.

    Returns:
        Columns score, value, low, high, is_within.
    """
    own = table[(table.arm == cell["arm"]) & (table.equal == cell["equal"])].set_index("score")
    rows = []
    for score in ("closed", "open", "facts"):
        value = float(np.mean(cell["outcomes"][score]))
        low, high = next_seed_range([float(one) for one in own.by_seed[score].split()], 0, 100)
        rows.append(
            {"score": score, "value": value, "low": low, "high": high, "is_within": low <= value <= high}
        )
    return pd.DataFrame(rows)
