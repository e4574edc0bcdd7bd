"""A cell is trained stage by stage, shared, resumed, run anew when asked, and keeps the outcome of every question."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import medv_lab
from medv_lab.model.causal import MedVForNextToken
from medv_lab.phantoms.benchmark import make_questions
from medv_lab.phantoms.reports import write_report
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.records import Prediction
from medv_lab.store import ExclusiveAccess, InUseError
from medv_lab.training import ablations, stages
from medv_lab.training.ablations import AblationRunner, EvalConfig, score_answers, score_text
from medv_lab.training.examples import PixelCollator
from medv_lab.training.pipelines import (
    BASE,
    COLLECTIONS,
    DATA_SETS,
    MINIATURE,
    PhantomData,
    data_digest,
    make_arms,
)
from medv_lab.training.stages import TensorCache
from tests.training.test_trainer import are_equal

CHANGES = [f"{stage}.{change}" for stage in BASE for change in ("steps=2", "batch_size=4")]
ARMS = {arm.name: arm for arm in reversed(make_arms(CHANGES))}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def make_runner(cache) -> AblationRunner:
    return AblationRunner(
        cache,
        amounts=MINIATURE,
        evaluation=EvalConfig(rounds=1, captions=4, descriptions=2),
        log=lambda line: None,
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


def test_a_cell_has_the_outcomes_of_all_questions_and_its_manifest(runner, monkeypatch):
    monkeypatch.setattr("medv_lab.runtime.has_bfloat16", lambda device: False)
    monkeypatch.setattr(ablations, "make_questions", lambda *asked: make_questions(*asked)[::9])
    cell = runner.run(ARMS["ours"], 0)
    outcomes = cell["outcomes"]
    wanted = {
        "closed",
        "open",
        "closed shuffled",
        "open shuffled",
        "facts",
        "well-formed",
        "duplicates hasty",
    }
    wanted |= {f"{kind} {name}" for kind in ("closed", "open") for name in DATA_SETS}
    wanted |= {"description facts", "description contradictions hasty", "open brain mri", "closed presence"}
    assert outcomes.keys() >= wanted
    for name, values in outcomes.items():
        assert all(0 <= value <= 100 for value in values)
        if not name.startswith(("closed", "open")):
            assert len(values) == (2 if name.startswith("description") else 4)
    for kind in ("closed", "open"):
        assert len(outcomes[kind]) == len(outcomes[f"{kind} shuffled"])
        assert sum(outcomes[kind]) == sum(sum(outcomes[f"{kind} {name}"]) for name in DATA_SETS)
    assert cell["manifest"]["settings"]["arm"]["stages"][2]["recipe"]["steps"] == 2
    assert (cell["manifest"]["settings"]["precision"], cell["manifest"]["device"]) == (["fp32"] * 4, "cpu")
    twin = runner.run(ARMS["twin"], 0)
    assert twin["outcomes"].keys() == {name for name in outcomes if "hasty" not in name}


def test_texts_are_scored_by_what_they_claim_and_how_they_are_written():
    (scene,) = make_scenes("test", 1)
    report = write_report(scene, np.random.default_rng(0), "detailed")
    scores = score_text(report, scene)
    assert scores["facts"] == scores["well-formed"] == 100
    assert scores["duplicates"] == scores["contradictions"] == 0
    assert scores["words"] == len(report.split())
    assert score_text("a a a", scene)["duplicates"] > 60


def test_few_pictures_are_fewer_in_all_but_the_text(runner, count_stages):
    plenty, few = ARMS["ours"], ARMS["ours-few"]
    assert [stage.recipe for stage in few.stages] == [stage.recipe for stage in plenty.stages]
    assert runner.weights_digest(few, 0, 1) == runner.weights_digest(plenty, 0, 1)
    assert runner.weights_digest(few, 0, 2) != runner.weights_digest(plenty, 0, 2)
    stage = replace(few.stages[2], pictures=12)
    data = [runner.data.load(one, 0, *runner.shipped, "")[0] for one in (stage, plenty.stages[2])]
    assert max(item["scene"] for item in data[0]) < 12 <= max(item["scene"] for item in data[1])
    few = replace(few, stages=(few.stages[0], replace(few.stages[1], pictures=12), stage))
    trained, other = runner.train(few, 0), runner.train(plenty, 0)
    assert count_stages.count("alignment") >= 1
    assert not are_equal(trained.state_dict(), other.state_dict())


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


def test_answers_are_listed_by_data_set_domain_and_family():
    questions = make_questions("test", 1)
    predictions = [
        Prediction(one.id, "s", one.reference if one.tags["domain"] == "histology" else "")
        for one in questions
    ]
    found = score_answers(questions, predictions)
    assert set(found["closed histology"]) == set(found["open histology"]) == {100}
    assert set(found["open radiology"]) == set(found["open brain mri"]) == {0}
    assert set(found["open pathology"]) == {0, 100}
    assert len(found["open"]) + len(found["closed"]) == len(questions)


def test_a_cell_whose_stage_is_in_work_elsewhere_waits_for_another_time(runner, cache):
    arm = ARMS["no-alignment"]
    with ExclusiveAccess(cache, runner.weights_digest(arm, 3, 2)), pytest.raises(InUseError):
        runner.run(arm, 3)
    assert runner.weights_digest(arm, 3, 1) in runner.stages.cache


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
