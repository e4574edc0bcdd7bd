"""The phantom benchmark: what it asks, and what is left without the picture."""

from collections import Counter

import numpy as np
import pytest

from medv_lab.metrics.scoring import evaluate_vqa
from medv_lab.phantoms.benchmark import BENCHMARKS, make_benchmarks, make_descriptions, make_questions
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import LENGTHS, REQUESTS, find_others
from medv_lab.phantoms.scenes import DOMAINS
from tests.phantoms.test_questions import is_held_out


@pytest.fixture(scope="module")
def questions():
    return make_questions("test", 1)


@pytest.fixture(scope="module")
def benchmarks():
    return make_benchmarks(2)


def test_questions_say_what_they_are_about(questions):
    assert len({one.id for one in questions}) == len(questions) > 100
    for one in questions:
        assert one.tags["domain"] == one.truth.domain and one.tags["family"] and one.split == "test"
        assert one.is_closed == (one.reference in ("yes", "no"))
        np.testing.assert_array_equal(one.image, render(one.truth))


def test_shuffled_pictures_are_never_the_right_ones_and_questions_stay(questions):
    other = make_questions("test", 1, "shuffled")
    assert other == questions  # but for pictures, truth and tags
    assert len({one.image.tobytes() for one in other}) > 50
    assert sum(one.truth == two.truth for one, two in zip(questions, other, strict=True)) < 0.05 * len(other)
    assert all(one.tags["domain"] == one.truth.domain for one in other)


def test_without_pictures_none_is_shown():
    blind = make_questions("test", 1, "none")
    assert {(one.image, one.truth, one.tags["domain"]) for one in blind} == {(None, None, "none")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 0), "1 or more"),
        (("test", 1, "wrong"), "right, shuffled, none"),
        (("exam", 1), "splits are"),
    ],
)
def test_an_impossible_benchmark_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_questions(*arguments)


def test_every_benchmark_has_its_own_pictures(benchmarks):
    by_name = {
        name: [one.truth for one in benchmarks if one.tags["benchmark"] == name] for name in BENCHMARKS
    }
    seen = {name: {scene.domain for scene in scenes} for name, scenes in by_name.items()}
    assert seen["radiology"] | seen["tissue"] == set(DOMAINS)
    assert not seen["radiology"] & seen["tissue"]
    assert seen["compositional"] == set(DOMAINS)
    for name, scenes in by_name.items():
        held_out = [is_held_out(scene, finding) for scene in scenes for finding in scene.findings]
        assert all(held_out) if name == "compositional" else not any(held_out)
    assert len({one.id for one in benchmarks}) == len(benchmarks)


def test_a_wording_gives_no_answer_away(benchmarks):
    answers: dict[tuple, Counter] = {}
    for one in benchmarks:
        answers.setdefault((one.tags["benchmark"], one.text), Counter())[one.reference] += 1
    assert all(len(found) > 1 and len(set(found.values())) == 1 for found in answers.values())
    closed = [one for one in benchmarks if one.is_closed]
    assert evaluate_vqa(closed, ["yes"] * len(closed))["yes/no accuracy"] == 50


def test_the_true_answer_has_full_marks(benchmarks):
    table = evaluate_vqa(benchmarks, [one.reference for one in benchmarks], "llava_med_batch")
    assert (table["recall"], table["yes/no accuracy"]) == (100, 100)


def test_whoever_is_blind_is_shown_nothing():
    assert {one.image for one in make_benchmarks(2, with_pictures=False)} == {None}
    with pytest.raises(ValueError, match="1 or more"):
        make_benchmarks(0)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_description_is_asked_for_in_every_wording_and_its_reference_is_the_whole_truth(length):
    asked = make_descriptions("test", 20, length)
    assert {one.text for one in asked} == set(REQUESTS[length])
    assert len({one.id for one in asked}) == 20
    for one in asked:
        assert score_facts(one.reference, one.truth).f1 == 1
        np.testing.assert_array_equal(one.image, render(one.truth))


def test_a_description_of_another_picture_is_held_to_the_own_scene():
    right, shuffled = (make_descriptions("test", 12, pictures=which) for which in ("right", "shuffled"))
    assert [one.truth for one in shuffled] == [one.truth for one in right]
    assert [one.reference for one in shuffled] == [one.reference for one in right]
    for one, other in zip(shuffled, find_others([one.truth for one in right]), strict=True):
        np.testing.assert_array_equal(one.image, right[other].image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 1), "give 2 or more"),
        (("test", 2, "long"), "sentence, brief, detailed"),
        (("test", 2, "brief", "none"), "allowed are right, shuffled"),
        (("exam", 2), "splits are"),
    ],
)
def test_impossible_descriptions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_descriptions(*arguments)
