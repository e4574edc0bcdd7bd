"""A grid is run once, resumed, shared among processes and run anew when asked; tables follow from its cells."""

import multiprocessing
import shutil

import pandas as pd
import pytest
import torch

from medv_lab.phantoms.benchmark import make_questions
from medv_lab.store import ExclusiveAccess, InUseError, Store
from medv_lab.studies import ablation_grid
from medv_lab.studies.ablation_grid import check_against, compare_arms, read_cells, run_ablations, tabulate
from medv_lab.training import ablations, stages
from medv_lab.training.ablations import AblationRunner, EvalConfig
from medv_lab.training.pipelines import BASE, MINIATURE, choose_arms, make_arms

GRID = choose_arms(make_arms(), ["ours", "V1"])
SCORES = {"ours": 60.0, "V1": 50.0}
CHANGES = [f"{stage}.{change}" for stage in BASE for change in ("steps=2", "batch_size=4")]
TRAINED = choose_arms(make_arms(CHANGES), ["ours", "no-alignment"], "steps")


class FakeRunner:
    """Stands for the runner: scores follow from arm and seed."""

    def __init__(self, version: str = "1", dies_at: int | None = None, offset: float = 0) -> None:
        self.version, self.dies_at, self.offset, self.ran = version, dies_at, offset, []

    def log(self, line: str) -> None:
        pass

    def digest(self, arm, seed: int) -> str:
        return f"{arm.name} {arm.equal} {seed} {self.version}"

    def run(self, arm, seed: int, *, fresh: bool) -> dict:
        if len(self.ran) == self.dies_at:
            raise KeyboardInterrupt
        self.ran.append((arm.name, arm.equal, seed, fresh))
        value = SCORES.get(arm.name, 40.0) + 5 * seed + self.offset
        # questions differ in how hard they are, for all arms alike
        outcomes = {
            "closed": [value - 10, value + 10],
            "open": [value - 9, value + 11],
            "facts": [value],
            "duplicates": [0],
        }
        return {
            "arm": arm.name,
            "equal": arm.equal,
            "seed": seed,
            "digest": self.digest(arm, seed),
            "steps": arm.steps,
            "outcomes": outcomes,
        }


def test_what_is_there_is_not_run_again_and_a_killed_run_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_ablations(GRID, range(2), FakeRunner(dies_at=3), tmp_path)
    rest = FakeRunner()
    cells = run_ablations(GRID, range(2), rest, tmp_path)
    assert len(cells) == 8
    assert len(rest.ran) == 5
    again = FakeRunner()
    assert run_ablations(GRID, range(2), again, tmp_path) == cells
    assert not again.ran
    assert sorted(read_cells(tmp_path), key=str) == sorted(cells, key=str)


def test_a_changed_recipe_runs_again(tmp_path):
    run_ablations(GRID, range(1), FakeRunner(), tmp_path)
    changed = FakeRunner("2")
    run_ablations(GRID, range(1), changed, tmp_path)
    assert len(changed.ran) == 4


def test_a_rerun_replaces_what_was_there_and_keeps_its_record(tmp_path):
    first, other = FakeRunner(), FakeRunner(offset=7)
    run_ablations(GRID[:1], [0], first, tmp_path)
    (cell,) = run_ablations(GRID[:1], [0], other, tmp_path, rerun=True)
    assert other.ran == [("ours", "steps", 0, True)]
    assert cell["outcomes"]["closed"] == [57, 77]
    assert run_ablations(GRID[:1], [0], first, tmp_path) == read_cells(tmp_path) == [cell]
    assert len(Store(tmp_path / "store", "cells")) == 2


def test_one_recipe_in_two_comparisons_is_run_once(tmp_path):
    class SameRecipe(FakeRunner):
        def digest(self, arm, seed: int) -> str:
            return f"{arm.name} {seed}"

    arms, runner = choose_arms(make_arms(), ["V2"]), SameRecipe()
    cells = run_ablations(arms, [0], runner, tmp_path)
    assert [arm.equal for arm in arms] == [cell["equal"] for cell in cells] == ["steps", "compute"]
    assert runner.ran == [("V2", "steps", 0, False)]
    assert cells[0] | {"equal": "compute"} == cells[1]


def test_cells_come_from_the_store_or_from_files_of_a_clone(tmp_path):
    cells = run_ablations(GRID, range(2), FakeRunner(), tmp_path / "one")
    exported = {path.name: path.read_bytes() for path in (tmp_path / "one" / "cells").iterdir()}

    # killed between record and export: the record is exported by the next run
    shutil.rmtree(tmp_path / "one" / "cells")
    rest = FakeRunner()
    assert run_ablations(GRID, range(2), rest, tmp_path / "one") == cells
    # a clone has the files alone
    shutil.copytree(tmp_path / "one" / "cells", tmp_path / "two" / "cells")
    assert run_ablations(GRID, range(2), rest, tmp_path / "two") == cells
    assert not rest.ran
    for folder in ("one", "two"):
        files = {path.name: path.read_bytes() for path in (tmp_path / folder / "cells").iterdir()}
        assert files == exported


def test_a_cell_that_another_process_finishes_is_not_run_again(tmp_path):
    class Racing(FakeRunner):
        def run(self, arm, seed, *, fresh):
            if not self.ran:  # while the first cell is trained here, another process does the second one
                run_in_another_process(GRID[1:2], tmp_path)
            return super().run(arm, seed, fresh=fresh)

    runner = Racing()
    assert len(run_ablations(GRID[:2], [0], runner, tmp_path)) == 2
    assert len(runner.ran) == 1


def run_in_another_process(arms, folder):
    worker = multiprocessing.get_context("fork").Process(
        target=run_ablations, args=(arms, [0], FakeRunner(), folder)
    )
    worker.start()
    worker.join()
    assert worker.exitcode == 0


def test_what_is_in_work_elsewhere_is_left_alone_and_come_back_to(tmp_path, monkeypatch):
    first, second = GRID[:2]
    held = ExclusiveAccess(tmp_path / "store", f"{first.name}-{first.equal}-0")
    held.__enter__()
    # nothing else is left to do: the other process ends without having made its cell
    monkeypatch.setattr(ablation_grid.time, "sleep", lambda seconds: held.__exit__())
    runner = FakeRunner()
    cells = run_ablations([first, second], [0], runner, tmp_path)
    assert [name for name, *_ in runner.ran] == [second.name, first.name]
    assert [cell["arm"] for cell in cells] == [first.name, second.name]


def test_a_cell_with_a_stage_in_work_elsewhere_comes_later(tmp_path):
    class Waiting(FakeRunner):
        refused = False

        def run(self, arm, seed, *, fresh):
            if arm == GRID[0] and not self.refused:
                self.refused = True
                raise InUseError("a stage of it is in work")
            return super().run(arm, seed, fresh=fresh)

    runner = Waiting()
    run_ablations(GRID[:2], [0, 1], runner, tmp_path)
    assert [(name, seed) for name, _, seed, _ in runner.ran] == [
        (GRID[1].name, 0),
        (GRID[0].name, 1),
        (GRID[1].name, 1),
        (GRID[0].name, 0),
    ]


def train_grid(folder, number):
    """Run the miniature grid, and note what was trained and scored."""
    torch.set_num_threads(1)
    lines = []
    runner = AblationRunner(
        folder / "cache",
        amounts=MINIATURE,
        evaluation=EvalConfig(rounds=1, captions=1, descriptions=1),
        log=lines.append,
    )
    run_ablations(TRAINED, [0, 1], runner, folder / "out")
    (folder / f"log-{number}").write_text("\n".join(lines))


def test_two_processes_share_a_grid_and_train_no_stage_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_grid, "PAUSE", 0.1)
    monkeypatch.setattr(ablations, "make_questions", lambda *asked: make_questions(*asked)[::20])
    ran = tmp_path / "ran"
    run_stage = stages.run_stage

    def noted(model, recipe, *args, folder, **settings):
        with ran.open("a") as file:
            file.write(f"{folder.name}\n")  # the key of the stage
        return run_stage(model, recipe, *args, folder=folder, **settings)

    monkeypatch.setattr(stages, "run_stage", noted)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=train_grid, args=(tmp_path, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    keys = ran.read_text().split()
    assert len(keys) == len(set(keys)) == 2 * 6  # text, alignment, two of SFT, and no-alignment's two
    assert len(Store(tmp_path / "out" / "store", "cells")) == len(read_cells(tmp_path / "out")) == 4
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(table.arm) == {"ours", "no-alignment"} and set(table.seeds) == {2}


def test_tables_hold_means_intervals_seeds_and_paired_differences(tmp_path):
    cells = run_ablations(GRID, range(5), FakeRunner(), tmp_path)
    table = tabulate(cells).set_index(["arm", "equal", "score"])
    row = table.loc["ours", "steps", "closed"]
    assert (row["mean"], row.seeds, row.questions) == (70, 5, 2)
    assert row.by_seed == "60.000 65.000 70.000 75.000 80.000"
    assert 50 <= row.low < 60 and 80 < row.high <= 90
    difference = compare_arms(cells).set_index(["arm", "equal", "score"]).loc["V1", "compute", "open"]
    assert (difference["mean"], difference.low, difference.high) == pytest.approx(
        (-10, -10, -10)
    )  # paired: seeds and questions cancel
    back = compare_arms(cells, base="V1").set_index(["arm", "equal", "score"]).loc["ours", "steps", "open"]
    assert back["mean"] == 10
    assert "V1,compute,open,5,2," in (tmp_path / "table.csv").read_text()
    assert "V1,ours,compute,open,5,2,-10.000" in (tmp_path / "differences.csv").read_text()
    assert tabulate(cells[:-4]).set_index(["arm", "equal", "score"]).low.isna().all()  # seeds 0 to 3 alone


def test_arms_are_compared_with_their_own_base(tmp_path):
    arms = choose_arms(make_arms(), ["ours", "V1", "V2", "twin", "ours-few", "twin-few"], "steps")
    cells = run_ablations(arms, [0], FakeRunner(), tmp_path)
    pairs = compare_arms(cells)[["arm", "base"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [
        ["V1", "ours"],
        ["V2", "ours"],
        ["V2", "V1"],
        ["twin", "ours"],
        ["ours-few", "ours"],
        ["twin-few", "ours-few"],
    ]


def test_a_cell_keeps_lists_of_numbers_in_one_line_each(tmp_path):
    run_ablations(GRID[:1], [0], FakeRunner(), tmp_path)
    assert '"closed": [50.0,70.0],\n' in (tmp_path / "cells" / "ours-steps-0.json").read_text()


def test_seeds_with_different_questions_are_not_mixed(tmp_path):
    cells = run_ablations(GRID[:1], range(2), FakeRunner(), tmp_path)
    cells[0]["outcomes"]["closed"].append(0)
    with pytest.raises(ValueError, match="ours in closed were scored on different questions"):
        tabulate(cells)


def test_a_cell_is_held_against_where_one_more_seed_lies(tmp_path):
    cells = run_ablations(GRID, range(3), FakeRunner(), tmp_path)
    table = tabulate(cells)
    found = check_against(table, cells[0])
    assert found.is_within.all() and found.high.max() <= 100
    off = {**cells[0], "outcomes": {**cells[0]["outcomes"], "open": [0, 0]}}
    assert check_against(table, off).set_index("score").is_within.to_dict() == {
        "closed": True,
        "open": False,
        "facts": True,
    }


def test_a_folder_without_cells_or_with_those_of_older_versions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no cells"):
        read_cells(tmp_path)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "old-steps-0.json").write_text('{"arm": "old", "scores": {"closed": 50.0}}')
    runner = FakeRunner()
    with pytest.raises(ValueError, match="old-steps-0.json has scores but no outcomes"):
        run_ablations(GRID[:1], [0], runner, tmp_path)
    assert not runner.ran
