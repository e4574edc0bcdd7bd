"""A grid is trained and scored once, resumed, and run anew when asked; tables say means, intervals and differences."""

import math
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import medv_lab
from medv_lab.model.causal import MedVForNextToken
from medv_lab.phantoms.benchmark import make_questions
from medv_lab.records import Prediction
from medv_lab.store import Store
from medv_lab.training import ablations, stages
from medv_lab.training.ablations import (
    AblationRunner,
    EvalConfig,
    check_against,
    compare_arms,
    measure_answers,
    read_cells,
    run_ablations,
    tabulate,
)
from medv_lab.training.examples import PixelCollator
from medv_lab.training.pipelines import (
    BASE,
    COLLECTIONS,
    DATA_SETS,
    MINIATURE,
    PhantomData,
    choose_arms,
    data_digest,
    make_arms,
)
from medv_lab.training.stages import TensorCache
from tests.training.test_trainer import are_equal

GRID = choose_arms(make_arms(), ["ours", "V1"])
SCORES = {"ours": 60.0, "V1": 50.0}
CHANGES = [f"{stage}.{change}" for stage in BASE for change in ("steps=2", "batch_size=4")]
ARMS = {arm.name: arm for arm in reversed(make_arms(CHANGES))}


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
        value = SCORES[arm.name] + 5 * seed + self.offset
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
    assert cell["scores"]["closed"] == 67
    assert run_ablations(GRID[:1], [0], first, tmp_path) == read_cells(tmp_path) == [cell]
    assert len(Store(tmp_path / "store", "cells")) == 2


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
                run_ablations(GRID[1:2], [0], FakeRunner(), tmp_path)
            return super().run(arm, seed, fresh=fresh)

    runner = Racing()
    assert len(run_ablations(GRID[:2], [0], runner, tmp_path)) == 2
    assert len(runner.ran) == 1


def test_tables_hold_means_intervals_and_paired_differences(tmp_path):
    cells = run_ablations(GRID, range(3), FakeRunner(), tmp_path)
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
    assert tabulate(cells[:1]).low.isna().all()  # a single cell has no interval


def test_a_cell_is_held_against_the_interval_of_one_more_seed(tmp_path):
    cells = run_ablations(GRID, range(3), FakeRunner(), tmp_path)
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


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def make_runner(cache) -> AblationRunner:
    return AblationRunner(
        cache, amounts=MINIATURE, evaluation=EvalConfig(rounds=1, captions=4), log=lambda line: None
    )


@pytest.fixture(scope="module")
def runner(cache):
    return make_runner(cache)


@pytest.fixture
def count_stages(monkeypatch):
    ran, run_stage = [], stages.run_stage

    def counted(model, recipe, *args, **settings):
        ran.append(recipe.name)
        return run_stage(model, recipe, *args, **settings)

    monkeypatch.setattr(stages, "run_stage", counted)
    return ran


def test_stages_are_shared_resumed_and_made_anew_to_the_same_weights(runner, cache, count_stages):
    v1 = runner.train(ARMS["V1"], 0)
    assert len(count_stages) == 5
    runner.train(ARMS["V2"], 0)
    assert len(count_stages) == 8  # text and general-domain stages are V1's
    again = make_runner(cache)
    (cache / f"{again.weights_digest(ARMS['V1'], 0, 5)}.safetensors").unlink()  # killed in its last stage
    assert are_equal(again.train(ARMS["V1"], 0).state_dict(), v1.state_dict())
    assert len(count_stages) == 9
    assert are_equal(make_runner(cache).train(ARMS["V1"], 0, fresh=True).state_dict(), v1.state_dict())
    assert len(count_stages) == 14
    assert not are_equal(again.train(ARMS["V1"], 1).state_dict(), v1.state_dict())


@pytest.mark.parametrize("name", ["ours", "twin", "lora", "vision"])
def test_towers_stay_as_they_were_unless_they_learn(runner, name):
    arm = ARMS[name]
    model, shipped = runner.train(arm, 0), runner.shipped[0]
    first, before = (runner.train(replace(arm, stages=arm.stages[:n]), 0) for n in (1, 2))  # text, alignment
    for part, learned_in in (("language_model", (False, True)), ("vision_tower", (False, name == "vision"))):
        states = [
            {key: value for key, value in one.state_dict().items() if key in one.parts()[part]}
            for one in (first, before, model)
        ]
        changed = [
            any(not torch.equal(value, two[key]) for key, value in one.items())
            for one, two in pairwise(states)
        ]
        assert tuple(changed) == learned_in, part
    tower = {name: value for name, value in first.state_dict().items() if "vision_tower" in name}
    assert all(torch.equal(value, shipped.state_dict()[name]) for name, value in tower.items())


def test_a_cell_has_its_scores_and_its_manifest(runner, monkeypatch):
    monkeypatch.setattr("medv_lab.runtime.has_bfloat16", lambda device: False)
    monkeypatch.setattr(ablations, "make_questions", lambda *asked: make_questions(*asked)[::9])
    cell = runner.run(ARMS["ours"], 0)
    wanted = {"closed", "open", "closed shuffled", "open shuffled", "facts", "duplicates", "duplicates hasty"}
    wanted |= {f"{kind} {name}" for kind in ("closed", "open") for name in DATA_SETS}
    assert cell["scores"].keys() >= wanted | {"open brain mri", "closed presence"}
    assert all(value >= 0 for value in cell["scores"].values())
    assert cell["manifest"]["settings"]["arm"]["stages"][2]["recipe"]["steps"] == 2
    assert (cell["manifest"]["settings"]["precision"], cell["manifest"]["device"]) == (["fp32"] * 4, "cpu")
    twin = runner.run(ARMS["twin"], 0)
    assert twin["scores"].keys() == {name for name in cell["scores"] if "hasty" not in name}


def test_the_digest_of_a_cell_follows_all_that_decides_it(cache, runner):
    arm, other = ARMS["ours"], ARMS["twin"]
    asked_more = AblationRunner(cache, amounts=MINIATURE, evaluation=EvalConfig(rounds=2))
    digests = [
        runner.digest(arm, 0),
        runner.digest(arm, 1),
        runner.digest(other, 0),
        asked_more.digest(arm, 0),
    ]
    assert len(set(digests)) == 4
    assert runner.digest(arm, 0) == make_runner(cache).digest(arm, 0)


def test_other_data_or_pictures_of_the_same_name_give_another_digest(runner, monkeypatch):
    arm = ARMS["ours"]
    before = runner.digest(arm, 0)
    for change in (
        lambda: monkeypatch.setitem(COLLECTIONS, "captions", COLLECTIONS["questions"]),
        lambda: monkeypatch.setattr("medv_lab.training.pipelines.render_all", lambda scenes: torch.zeros(1)),
    ):
        change()
        data_digest.cache_clear()
        assert runner.digest(arm, 0) != before
        monkeypatch.undo()
    data_digest.cache_clear()
    assert runner.digest(arm, 0) == before


def test_a_saved_twin_is_loaded_as_one(runner, tmp_path):
    runner.save(ARMS["twin"], 0, tmp_path)
    model, _ = medv_lab.load(tmp_path, device="cpu")
    assert isinstance(model, MedVForNextToken)
    assert are_equal(model.state_dict(), runner.train(ARMS["twin"], 0).state_dict())


def test_answers_are_counted_by_data_set_domain_and_family():
    questions = make_questions("test", 1)
    predictions = [
        Prediction(one.id, "s", one.reference if one.tags["domain"] == "histology" else "")
        for one in questions
    ]
    found = measure_answers(questions, predictions)
    assert found["closed histology"] == found["open histology"] == 100
    assert found["open radiology"] == found["open brain mri"] == 0
    assert 0 < found["open pathology"] < 100


def test_features_are_computed_once_and_are_what_the_pixels_give(runner, cache, monkeypatch):
    model, tower = runner.shipped[0], runner.vision_digest
    features = runner.data.features("captions", model, tower)
    images = runner.data.images("captions")
    monkeypatch.setattr(
        "medv_lab.training.pipelines.frozen_features", lambda *args: pytest.fail("computed again")
    )
    assert torch.equal(
        PhantomData(MINIATURE, TensorCache(cache)).features("instructions", model, tower), features
    )
    item = {"input_ids": [1], "labels": [1], "scene": 7}
    pixels = PixelCollator(0, images)([item])["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(
            model.vision_features(pixels)[0], features[7].float(), atol=2e-2, rtol=2e-2
        )
