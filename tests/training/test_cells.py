"""A cell of the ablations on a budget of seconds: it trains, shares, resumes and is scored."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from medv_lab.training.cells import Exam, Workshop, measure_answers
from medv_lab.training.worlds import COLLECTIONS, Amounts, PixelCollator, Worlds, data_digest

import medv_lab
from medv_lab.model.causal import MedVForNextToken
from medv_lab.phantoms.benchmark import Scored, make_items
from medv_lab.phantoms.reports import CAPTION_REQUESTS, DESCRIPTION_REQUESTS
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.training import cells
from medv_lab.training.pipelines import BASE, DATA_SETS, INSTRUCTIONS, QUESTIONS, make_arms

AMOUNTS = Amounts(scenes=60, general_scenes=30, rounds=1, general_rounds=1)
CHANGES = [f"{stage}.{change}" for stage in BASE for change in ("steps=2", "batch_size=4")]
ARMS = {arm.name: arm for arm in reversed(make_arms(CHANGES))}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def make_workshop(cache) -> Workshop:
    return Workshop(cache, amounts=AMOUNTS, exam=Exam(rounds=1, captions=4), log=lambda line: None)


@pytest.fixture(scope="module")
def workshop(cache):
    return make_workshop(cache)


def are_equal(one, two) -> bool:
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.fixture
def count_stages(monkeypatch):
    ran, run_stage = [], cells.run_stage

    def counted(model, recipe, *args, **settings):
        ran.append(recipe.name)
        return run_stage(model, recipe, *args, **settings)

    monkeypatch.setattr(cells, "run_stage", counted)
    return ran


def test_stages_are_shared_resumed_and_made_anew_to_the_same_weights(workshop, cache, count_stages):
    v1 = workshop.train(ARMS["V1"], 0)
    assert len(count_stages) == 5
    workshop.train(ARMS["V2"], 0)
    assert len(count_stages) == 8  # text and general-domain stages are V1's
    again = make_workshop(cache)
    (cache / f"{again.weights_digest(ARMS['V1'], 0, 5)}.safetensors").unlink()  # killed in its last stage
    assert are_equal(again.train(ARMS["V1"], 0), v1)
    assert len(count_stages) == 9
    assert are_equal(make_workshop(cache).train(ARMS["V1"], 0, fresh=True), v1)
    assert len(count_stages) == 14
    assert not are_equal(again.train(ARMS["V1"], 1), v1)


@pytest.mark.parametrize("name", ["ours", "twin", "lora", "vision"])
def test_towers_stay_as_they_were_unless_they_learn(workshop, name):
    arm = ARMS[name]
    model, shipped = workshop.train(arm, 0), workshop.shipped[0]
    first, before = (
        workshop.train(replace(arm, stages=arm.stages[:n]), 0) for n in (1, 2)
    )  # text, alignment
    for part, learned_in in (("language_tower", (False, True)), ("vision_tower", (False, name == "vision"))):
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


def test_a_cell_has_its_scores_and_its_manifest(workshop, monkeypatch):
    monkeypatch.setattr(cells, "make_items", lambda *asked: make_items(*asked)[::9])
    cell = workshop.run(ARMS["ours"], 0)
    wanted = {"closed", "open", "closed shuffled", "open shuffled", "facts", "duplicates", "duplicates hasty"}
    wanted |= {f"{kind} {name}" for kind in ("closed", "open") for name in DATA_SETS}
    assert cell["scores"].keys() >= wanted | {"open brain mri", "closed presence"}
    assert all(value >= 0 for value in cell["scores"].values())
    assert cell["manifest"]["settings"]["arm"]["stages"][2]["recipe"]["steps"] == 2
    twin = workshop.run(ARMS["twin"], 0)
    assert twin["scores"].keys() == {name for name in cell["scores"] if "hasty" not in name}


def test_the_digest_of_a_cell_follows_all_that_decides_it(cache, workshop):
    arm, other = ARMS["ours"], ARMS["twin"]
    asked_more = Workshop(cache, amounts=AMOUNTS, exam=Exam(rounds=2))
    digests = [
        workshop.digest(arm, 0),
        workshop.digest(arm, 1),
        workshop.digest(other, 0),
        asked_more.digest(arm, 0),
    ]
    assert len(set(digests)) == 4
    assert workshop.digest(arm, 0) == make_workshop(cache).digest(arm, 0)


def test_other_data_or_pictures_of_the_same_name_give_another_digest(workshop, monkeypatch):
    arm = ARMS["ours"]
    before = workshop.digest(arm, 0)
    for change in (
        lambda: monkeypatch.setitem(COLLECTIONS, "captions", COLLECTIONS["questions"]),
        lambda: monkeypatch.setattr("medv_lab.training.worlds.render_all", lambda scenes: torch.zeros(1)),
    ):
        change()
        data_digest.cache_clear()
        assert workshop.digest(arm, 0) != before
        monkeypatch.undo()
    data_digest.cache_clear()
    assert workshop.digest(arm, 0) == before


def test_a_saved_twin_is_loaded_as_one(workshop, tmp_path):
    workshop.save(ARMS["twin"], 0, tmp_path)
    model, _ = medv_lab.load(tmp_path, device="cpu")
    assert isinstance(model, MedVForNextToken)
    assert are_equal(model, workshop.train(ARMS["twin"], 0))


def test_answers_are_counted_by_data_set_domain_and_family():
    items = make_items("test", 1)
    results = [
        Scored(i.question.family, i.question.is_closed, "", "", "", float(i.scene.domain == "histology"))
        for i in items
    ]
    found = measure_answers(items, results)
    assert found["closed histology"] == found["open histology"] == 100
    assert found["open radiology"] == found["open brain mri"] == 0
    assert 0 < found["open pathology"] < 100


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_hold_what_they_are_named_for(tmp_path, name):
    worlds = Worlds(AMOUNTS, tmp_path)
    examples = worlds.examples(name, 0)
    assert examples == Worlds(AMOUNTS, tmp_path).examples(name, 0)
    pictures = worlds.general_scenes if name.startswith("general") else worlds.scenes
    shown = {example.scene for example in examples}
    if name == "text":
        assert shown == {None}
    else:
        assert shown <= set(range(len(pictures)))
    if name.startswith("questions"):
        domains = DATA_SETS.get(name.removeprefix("questions, "), DOMAINS)
        assert {worlds.scenes[scene].domain for scene in shown} == set(domains)


def test_stage_2_asks_for_answers_captions_and_descriptions(tmp_path):
    worlds = Worlds(AMOUNTS, tmp_path)
    asked = [example.turns[0][0] for example in worlds.examples(INSTRUCTIONS, 0)]
    for requests, share in ((CAPTION_REQUESTS, 2), (DESCRIPTION_REQUESTS, 4)):
        assert sum(question in requests for question in asked) == len(worlds.scenes) // share
    single = len(asked) - len(worlds.scenes) * 3 // 4
    assert single > len(worlds.examples(QUESTIONS, 0))  # more of the late ones


def test_an_unknown_collection_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there are text, captions"):
        Worlds(AMOUNTS, tmp_path).examples("caption", 0)


def test_features_are_computed_once_and_are_what_the_pixels_give(workshop, cache, monkeypatch):
    model, tower = workshop.shipped[0], workshop.tower
    features = workshop.worlds.features("captions", model, tower)
    images = workshop.worlds.images("captions")
    monkeypatch.setattr(
        "medv_lab.training.worlds.frozen_features", lambda *args: pytest.fail("computed again")
    )
    assert torch.equal(Worlds(AMOUNTS, cache).features("instructions", model, tower), features)
    item = {"input_ids": [1], "labels": [1], "length": 1, "scene": 7}
    pixels = PixelCollator(0, images)([item])["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(
            model.vision_features(pixels)[0], features[7].float(), atol=2e-2, rtol=2e-2
        )
