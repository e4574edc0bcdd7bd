"""A grid is run once, resumed, and run anew when asked; tables say means, intervals and paired differences."""

import json
import math

import pytest

from medv_lab.training.ablations import (
    cell_path,
    check_against,
    compare_arms,
    read_cells,
    run_ablations,
    tabulate,
)
from medv_lab.training.pipelines import choose_arms, make_arms

ARMS = choose_arms(make_arms(), ["ours", "V1"])
BASE = {"ours": 60.0, "V1": 50.0}


class Bench:
    """Stands for the workshop: scores follow from arm and seed."""

    def __init__(self, version: str = "1", dies_at: int | None = None) -> None:
        self.version, self.dies_at, self.ran = version, dies_at, []

    def log(self, line: str) -> None:
        pass

    def digest(self, arm, seed: int) -> str:
        return f"{arm.name} {arm.equal} {seed} {self.version}"

    def run(self, arm, seed: int, *, fresh: bool) -> dict:
        if len(self.ran) == self.dies_at:
            raise KeyboardInterrupt
        self.ran.append((arm.name, arm.equal, seed, fresh))
        value = BASE[arm.name] + 5 * seed
        scores = {"closed": value, "open": value + 1, "facts": value, "duplicates": 0.0}
        return {
            "arm": arm.name,
            "equal": arm.equal,
            "seed": seed,
            "digest": self.digest(arm, seed),
            "steps": arm.steps,
            "scores": scores,
        }


def test_what_is_there_is_not_run_again_and_a_killed_run_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_ablations(ARMS, range(2), Bench(dies_at=3), tmp_path)
    rest = Bench()
    cells = run_ablations(ARMS, range(2), rest, tmp_path)
    assert len(cells) == 8
    assert len(rest.ran) == 5
    again = Bench()
    assert run_ablations(ARMS, range(2), again, tmp_path) == cells
    assert not again.ran
    assert sorted(read_cells(tmp_path), key=str) == sorted(cells, key=str)


def test_a_changed_recipe_and_a_rerun_run_again(tmp_path):
    run_ablations(ARMS, range(1), Bench(), tmp_path)
    changed = Bench("2")
    run_ablations(ARMS, range(1), changed, tmp_path)
    assert len(changed.ran) == 4
    anew = Bench("2")
    run_ablations(ARMS[:1], range(1), anew, tmp_path, rerun=True)
    assert anew.ran == [("ours", "steps", 0, True)]


def test_tables_hold_means_intervals_and_paired_differences(tmp_path):
    cells = run_ablations(ARMS, range(3), Bench(), tmp_path)
    table = tabulate(cells).set_index(["arm", "equal", "score"])
    row = table.loc["ours", "steps", "closed"]
    assert row["mean"] == 65
    assert row.high - row["mean"] == pytest.approx(4.303 * 5 / math.sqrt(3))
    difference = compare_arms(cells).set_index(["arm", "equal", "score"]).loc["V1", "compute", "open"]
    assert (difference["mean"], difference.low, difference.high) == (-10, -10, -10)  # paired: seeds cancel
    back = compare_arms(cells, base="V1").set_index(["arm", "equal", "score"]).loc["ours", "steps", "open"]
    assert back["mean"] == 10
    assert "V1,compute,open,3," in (tmp_path / "table.csv").read_text()
    assert "V1,ours,compute,open,3,-10.000" in (tmp_path / "differences.csv").read_text()


def test_a_single_cell_has_no_interval(tmp_path):
    table = tabulate(run_ablations(ARMS[:1], [0], Bench(), tmp_path))
    assert table.low.isna().all()


def test_a_cell_is_held_against_the_interval_of_one_more_seed(tmp_path):
    cells = run_ablations(ARMS, range(3), Bench(), tmp_path)
    table = tabulate(cells)
    assert check_against(table, cells[0]).is_within.all()
    off = {**cells[0], "scores": {**cells[0]["scores"], "open": 0.0}}
    assert check_against(table, off).set_index("score").is_within.to_dict() == {
        "closed": True,
        "open": False,
        "facts": True,
    }


def test_a_folder_without_cells_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no cells"):
        read_cells(tmp_path)
    assert not cell_path(tmp_path, ARMS[0], 0).exists()


def test_a_cell_is_json(tmp_path):
    run_ablations(ARMS[:1], [0], Bench(), tmp_path)
    assert json.loads(cell_path(tmp_path, ARMS[0], 0).read_text())["steps"] == ARMS[0].steps
