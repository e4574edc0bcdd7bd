"""Claims of descriptions: true ones are found in whatever words, false, doubled and contradicting ones never help."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from medv_lab.phantoms.facts import mark_claims, score_facts
from medv_lab.phantoms.reports import make_caption, make_description
from medv_lab.phantoms.scenes import GRADES, KINDS, Finding, Scene, make_scenes

SCENES = make_scenes("train", 500)
SCENE = Scene(
    "brain mri", (Finding("tumour", "left", "upper", "large"), Finding("plaque", "right", "lower", "two")), 0
)


@pytest.mark.parametrize("write", [make_caption, make_description])
def test_every_text_of_the_grammar_is_wholly_true_and_complete(write):
    rng = np.random.default_rng(0)
    for scene in SCENES:
        text = write(scene, rng)
        score = score_facts(text, scene)
        assert (score.precision, score.recall, score.f1) == (1, 1, 1), text


def test_a_text_about_another_scene_is_punished():
    rng = np.random.default_rng(0)
    scores = [
        score_facts(make_description(other, rng), scene).f1
        for scene, other in zip(SCENES, SCENES[5:], strict=False)
        if scene.findings != other.findings
    ]
    assert max(scores) < 1
    assert np.mean(scores) < 0.6


@pytest.mark.parametrize("name", ["side", "zone", "grade"])
def test_one_false_word_costs_precision_and_recall(name):
    finding = SCENE.findings[0]
    choices = {"side": ("right",), "zone": ("lower",), "grade": GRADES[KINDS["brain mri"]["tumour"]]}[name]
    wrong = next(value for value in choices if value != getattr(finding, name))
    other = replace(SCENE, findings=(replace(finding, **{name: wrong}), SCENE.findings[1]))
    score = score_facts(make_caption(other, np.random.default_rng(0)), SCENE)
    assert score.precision == pytest.approx(8 / 9)
    assert score.recall == pytest.approx(8 / 9)


def test_repetition_gains_nothing_and_contradiction_costs():
    once = make_caption(SCENE, np.random.default_rng(1))
    assert score_facts(f"{once} {once}", SCENE) == score_facts(once, SCENE)
    both = score_facts(f"{once} There is a large tumour in the right upper zone.", SCENE)
    assert both.recall == 1
    assert both.precision == pytest.approx(9 / 10)


def test_a_false_negative_statement_costs_and_a_true_one_is_right():
    text = make_caption(SCENE, np.random.default_rng(2))
    assert score_facts(f"{text} There is no oedema.", SCENE).precision == 1
    assert score_facts(f"{text} No plaque is seen.", SCENE).precision < 1


def test_saying_nothing_scores_nothing():
    assert score_facts("", SCENE).f1 == 0
    assert score_facts("the the the", SCENE).f1 == 0


NODULES = Scene("chest x-ray", (Finding("nodule", "left", "upper", "two"),), 0)


def words(text: str) -> list[tuple[str, bool]]:
    return [(text[start:end], is_true) for start, end, is_true in mark_claims(text, NODULES)]


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("", []),
        ("The lungs are dark.", []),
        ("This is a chest x-ray.", [("chest x-ray", True)]),
        ("A brain mri.", [("brain mri", False)]),
        (
            "Two nodules in the left lower zone.",
            [("Two nodules", True), ("left", True), ("lower", False)],
        ),
        ("There is no cavity.", [("cavity", True)]),
        ("No nodule is seen.", [("nodule", False)]),
        ("The right side is clear.", []),
        ("No abnormality is seen.", [("abnormality", False)]),
        (
            "two nodules in the left upper zone and a cyst on the right",
            [("two nodules", True), ("left upper", True), ("cyst", False), ("right", False)],
        ),
    ],
)
def test_claims_are_found_where_they_stand(text, marked):
    assert words(text) == marked


def test_true_descriptions_have_no_untrue_mark_and_marks_are_in_order():
    for number, scene in enumerate(make_scenes("validation", 40)):
        text = make_description(scene, np.random.default_rng(number))
        marks = mark_claims(text, scene)
        assert marks and all(is_true for _, _, is_true in marks), (text, marks)
        assert all(a[1] <= b[0] for a, b in pairwise(marks))
