"""Balanced questions and true sentences."""

from collections import Counter

import numpy as np
import pytest

from medv_lab.phantoms.questions import ALL_KINDS, PROBES, balanced_questions
from medv_lab.phantoms.reports import make_dialogue
from medv_lab.phantoms.scenes import (
    HELD_OUT,
    KINDS,
    SPLITS,
    Finding,
    Scene,
    make_scene,
    make_scenes,
)


def is_held_out(scene: Scene, finding: Finding) -> bool:
    return HELD_OUT[scene.domain, finding.kind] == (finding.side, finding.zone)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return make_scenes("test", 1500)


def test_scenes_are_the_same_every_time_and_no_scene_of_one_split_is_in_another():
    assert make_scene("train", 17) == make_scene("train", 17)
    seen = {split: {repr(scene) for scene in make_scenes(split, 3000)} for split in SPLITS}
    assert all(len(scenes) == 3000 for scenes in seen.values())
    assert len(set().union(*seen.values())) == 3000 * len(SPLITS)


def test_held_out_cells_appear_only_in_the_compositional_split(scenes):
    assert not any(is_held_out(scene, finding) for scene in scenes for finding in scene.findings)
    held = make_scenes("compositional", 40)
    assert all(is_held_out(scene, scene.findings[0]) for scene in held)
    assert {(scene.domain, scene.findings[0].kind) for scene in held} == set(HELD_OUT)


def test_findings_have_cells_and_kinds_of_their_own(scenes):
    for scene in scenes:
        assert len({(finding.side, finding.zone) for finding in scene.findings}) == len(scene.findings)
        assert len({finding.kind for finding in scene.findings}) == len(scene.findings)
        assert all(finding.kind in KINDS[scene.domain] for finding in scene.findings)


@pytest.mark.parametrize(("split", "index"), [("holdout", 0), ("train", -1)])
def test_unknown_scenes_are_refused(split, index):
    with pytest.raises(ValueError, match="splits are train, validation"):
        make_scene(split, index)


def test_every_wording_has_its_answers_equally_often(scenes):
    questions = balanced_questions(scenes, rounds=6, seed=0)
    assert {question.probe for question in questions} == set(PROBES)
    assert all(question.probe.answer(scenes[question.scene]) == question.answer for question in questions)
    counts = Counter((question.probe.name, question.text, question.answer) for question in questions)
    for text in {question.text for question in questions}:
        per_answer = [n for (_, wording, _), n in counts.items() if wording == text]
        assert len(per_answer) >= 2
        assert len(set(per_answer)) == 1


def test_no_question_gives_a_finding_away_together_with_its_place(scenes):
    places = ("left", "right", "upper", "middle", "lower")
    for question in balanced_questions(scenes, rounds=1, seed=0):
        words = set(question.text.rstrip("?").split())
        assert not (words & set(ALL_KINDS) and words & set(places))


def test_dialogues_ask_no_question_twice(scenes):
    turns = make_dialogue(scenes[0], np.random.default_rng(0), 4)
    assert len({question for question, _ in turns}) == len(turns) == 4
