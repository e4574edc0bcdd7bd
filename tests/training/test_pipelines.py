"""The grid of the ablations: what differs, what is equal, what can be changed."""

from dataclasses import replace

import pytest

from medv_lab.phantoms.reports import REQUESTS
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.training.pipelines import (
    COLLECTIONS,
    DATA_SETS,
    FEW,
    INSTRUCTIONS,
    MAIN,
    MINIATURE,
    OURS,
    QUESTIONS,
    PhantomData,
    choose_arms,
    make_arms,
    make_recipes,
)
from medv_lab.training.recipes import EMBEDDED
from medv_lab.training.stages import TensorCache

ARMS = make_arms()


def pick(name: str, equal: str = "steps"):
    return next(arm for arm in ARMS if (arm.name, arm.equal) == (name, equal))


def test_every_cell_of_the_grid_has_one_name_and_known_data():
    assert len({(arm.name, arm.equal) for arm in ARMS}) == len(ARMS)
    assert {stage.data for arm in ARMS for stage in arm.stages} <= COLLECTIONS.keys()
    assert [arm.name for arm in ARMS[:4]] == list(MAIN)


def test_arms_equal_in_steps_share_every_stage_that_they_have():
    plain = [
        arm
        for arm in ARMS
        if arm.equal == "steps" and arm.name not in ("lora", "vision", "ours-few", "twin-few")
    ]
    for data in {stage.data for arm in plain for stage in arm.stages}:
        assert len({stage for arm in plain for stage in arm.stages if stage.data == data}) == 1


def test_arms_equal_in_compute_see_as_many_dialogues_as_the_longest():
    longest = pick("V2")
    equal = [arm for arm in ARMS if arm.equal == "compute"]
    assert {arm.name for arm in equal} >= {*MAIN, "no-alignment"}
    assert pick("V2", "compute").stages == longest.stages
    assert {arm.dialogues for arm in equal} == {longest.dialogues}
    for arm in equal:
        short = pick(arm.name).stages
        assert arm.stages[: len(short)] == short
        assert [stage.data for stage in arm.stages[len(short) :]] == [INSTRUCTIONS] * (arm.name != "V2")


def test_the_arms_differ_in_what_they_are_named_for():
    ours = pick(OURS)
    assert replace(pick("twin"), name=ours.name, label=ours.label, is_causal=False) == ours
    assert replace(pick("twin-few"), name="ours-few", label=pick("ours-few").label, is_causal=False) == pick(
        "ours-few"
    )
    assert [stage.pictures for stage in pick("ours-few").stages] == [None, FEW, FEW, FEW]
    assert tuple(replace(stage, pictures=None) for stage in pick("ours-few").stages) == ours.stages
    assert pick("V1").stages == tuple(s for s in pick("V2").stages if s.data != "captions")
    assert pick("no-alignment").stages == tuple(s for s in ours.stages if s.data != "captions")
    assert pick("stage3-radiology").stages[:-1] == ours.stages
    assert pick("lora").stages[-1].recipe == replace(
        ours.stages[-1].recipe, lora=pick("lora").stages[-1].recipe.lora
    )
    assert pick("vision").stages[-1].recipe.parts == ("vision_tower", "projector", "language_model")


def test_recipes_are_small_copies_of_the_embedded_ones():
    for stage, recipe in make_recipes().items():
        base = EMBEDDED[stage.removeprefix("general-")]
        assert recipe.parts == base.parts
        assert recipe.learning_rates == base.learning_rates
        assert recipe.betas == base.betas
        assert stage in ("text", "questions") or recipe.count_steps() < base.count_steps()


def test_changes_hold_in_every_arm_and_compute_stays_equal():
    arms = make_arms(["instruct.steps=7", "general-instruct.batch_size=4"])
    found = {
        s.recipe.steps for arm in arms if arm.equal == "steps" for s in arm.stages if s.data == INSTRUCTIONS
    }
    assert found == {7}
    most, batch = arms[2].dialogues, arms[0].stages[-1].recipe.batch_size
    assert all(abs(arm.dialogues - most) <= batch / 2 for arm in arms if arm.equal == "compute")
    for change in ("steps=3", "vision.steps=3", "instruct.stepps=3"):
        with pytest.raises(ValueError, match=change.partition("=")[0].split(".")[-1]):
            make_arms([change])


def test_arms_are_chosen_by_name():
    assert choose_arms(ARMS) == list(ARMS)
    assert {arm.name for arm in choose_arms(ARMS, ["V1"])} == {"V1"}
    assert {arm.name for arm in choose_arms(ARMS, ["main", "lora"])} == {*MAIN, "lora"}
    assert {(arm.name, arm.equal) for arm in choose_arms(ARMS, ["V1"], "compute")} == {("V1", "compute")}
    with pytest.raises(ValueError, match="no arm 'v1'; there are main, V1"):
        choose_arms(ARMS, ["v1"])
    with pytest.raises(ValueError, match="steps, compute"):
        choose_arms(ARMS, equal="time")


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_hold_what_they_are_named_for(tmp_path, name):
    data = PhantomData(MINIATURE, TensorCache(tmp_path))
    examples = COLLECTIONS[name](data, 0)
    assert examples == COLLECTIONS[name](PhantomData(MINIATURE, TensorCache(tmp_path)), 0)
    pictures = data.general_scenes if name.startswith("general") else data.scenes
    shown = {example.scene for example in examples}
    if name == "text":
        assert shown == {None}
    else:
        assert shown <= set(range(len(pictures)))
    if name.startswith("questions"):
        domains = DATA_SETS.get(name.removeprefix("questions, "), DOMAINS)
        assert {data.scenes[scene].domain for scene in shown} == set(domains)


def test_stage_2_asks_for_answers_and_reports_of_all_lengths(tmp_path):
    data = PhantomData(MINIATURE, TensorCache(tmp_path))
    asked = [example.turns[0][0] for example in COLLECTIONS[INSTRUCTIONS](data, 0)]
    count = {length: sum(one in requests for one in asked) for length, requests in REQUESTS.items()}
    half = len(data.scenes) // 2
    assert count == {"sentence": 4 * half, "brief": half, "detailed": half}


def test_fewer_pictures_are_the_first_ones_with_as_many_fewer_questions(tmp_path):
    data = PhantomData(replace(MINIATURE, rounds=10), TensorCache(tmp_path))
    few = data.limit(30)
    assert few.scenes == data.scenes[:30]
    whole, part = (len(COLLECTIONS[QUESTIONS](one, 0)) for one in (data, few))
    assert 0.4 * whole < part <= 0.5 * whole
    assert len(data.limit(1000).scenes) == len(data.scenes)
