"""Claims of descriptions: true ones count, false, doubled and contradicting ones never help."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from medv_lab.phantoms.facts import mark_claims, read_reply, score_facts
from medv_lab.phantoms.reports import LENGTHS, write_report
from medv_lab.phantoms.scenes import GRADES, KINDS, Finding, Scene, make_scenes

SCENES = make_scenes("train", 500)
SCENE = Scene(
    "brain mri", (Finding("tumour", "left", "upper", "large"), Finding("plaque", "right", "lower", "two")), 0
)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_text_of_the_grammar_is_wholly_true_and_complete(length):
    rng = np.random.default_rng(0)
    for scene in SCENES:
        text = write_report(scene, rng, length)
        score = score_facts(text, scene)
        assert (score.precision, score.recall, score.f1) == (1, 1, 1), text


def test_a_text_about_another_scene_is_punished():
    rng = np.random.default_rng(0)
    scores = [
        score_facts(write_report(other, rng), scene).f1
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
    score = score_facts(write_report(other, np.random.default_rng(0), "sentence"), SCENE)
    assert score.precision == pytest.approx(8 / 9)
    assert score.recall == pytest.approx(8 / 9)


def test_repetition_gains_nothing_and_contradiction_costs_both_claims():
    once = write_report(SCENE, np.random.default_rng(1), "sentence")
    assert score_facts(f"{once} {once}", SCENE) == score_facts(once, SCENE)
    both = score_facts(f"{once} The right upper zone shows a tumour, large in size.", SCENE)
    assert both.recall == pytest.approx(8 / 9)  # its side is said both ways
    assert both.precision == pytest.approx(8 / 10)


def test_a_false_negative_statement_costs_and_a_true_one_is_right():
    text = write_report(SCENE, np.random.default_rng(2), "sentence")
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
        ("Air makes the lungs dark.", []),
        ("Nodules and a nodule.", []),
        ("This is a chest x-ray.", [("chest x-ray", True)]),
        ("This is a brain mri.", [("brain mri", False)]),
        (
            "The left lower zone shows nodules, two in number.",
            [("left", True), ("lower", False), ("nodule", True), ("two", True)],
        ),
        ("There is no cavity.", [("cavity", True)]),
        ("No nodule is seen.", [("nodule", False)]),
        ("No abnormality is seen.", [("No abnormality is seen.", False)]),
        ("Impression: no abnormality.", [("no abnormality", False)]),
        (
            "Impression: nodules in the left upper zone, numbering two, and "
            "a cyst in the right upper zone, of small size.",
            [
                *(("nodule", True), ("left upper", True), ("two", True)),
                *(("cyst", False), ("right upper", False), ("small", False)),
            ],
        ),
        ("A chest x-ray with no abnormality.", [("chest x-ray", True), ("no abnormality", False)]),
        (  # each is held against the picture by itself, whatever another clause says
            "The left upper zone shows nodules, two in number. There is no nodule.",
            [("left upper", True), ("nodule", True), ("two", True), ("nodule", False)],
        ),
        (
            "There are nodules in the left upper zone, two in number. There are nodules in the left lower zone, "
            "three in number.",
            [
                *(("nodule", True), ("left upper", True), ("two", True)),
                *(("nodule", True), ("left", True), ("lower", False), ("three", False)),
            ],
        ),
        # words of the grammar in no clause of it
        ("Severe nodules in the left upper zone shows a large cyst.", []),
        ("The lungs are dark because they hold nodules.", []),
        ("There are nodules in the left left upper zone, two in number.", []),
        # said again in the same role, and in another one
        ("There is no cavity. There is no cavity. No cavity is seen.", [("cavity", True)]),
        (
            "No abnormality is seen. Impression: no abnormality.",
            [("No abnormality is seen.", False), ("no abnormality", False)],
        ),
    ],
)
def test_claims_are_found_where_they_stand(text, marked):
    assert words(text) == marked


def test_true_descriptions_have_no_untrue_mark_and_marks_are_in_order():
    for number, scene in enumerate(make_scenes("validation", 40)):
        text = write_report(scene, np.random.default_rng(number))
        marks = mark_claims(text, scene)
        assert marks and all(is_true for _, _, is_true in marks), (text, marks)
        assert all(a[1] <= b[0] for a, b in pairwise(marks))


@pytest.mark.parametrize(
    ("reply", "claims"),
    [
        ("On the left.", {("side", "nodule", "left")}),
        ("three", {("grade", "nodule", "three")}),
        ("Nodules", {("kind", "nodule")}),
        ("There is no cavity", {("absent", "cavity")}),
        ("a chest x-ray", {("domain", "chest x-ray")}),
        ("There is no cavity.", {("absent", "cavity")}),
        ("maybe", set()),
    ],
)
def test_a_reply_need_not_be_a_sentence(reply, claims):
    assert read_reply(reply, NODULES) == claims
