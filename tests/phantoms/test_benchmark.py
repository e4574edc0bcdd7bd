"""The phantom benchmark: what it asks, what it counts as right, and what is left without the picture."""

import json

import numpy as np
import pytest

from medv_lab.phantoms.benchmark import (
    COLUMNS,
    IMAGE_SIZE,
    compare,
    domains_of,
    evaluate_phantoms,
    make_items,
    read_results,
    score_answer,
    summarise,
    write_results,
)
from medv_lab.phantoms.questions import Question
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import DOMAINS


@pytest.fixture(scope="module")
def items():
    return make_items("test", 1)


def ask_oracle(items):
    """Answers from the truth, found again by the picture's bytes and the question."""
    truth = {
        (render(item.scene, size=IMAGE_SIZE).tobytes(), item.question.text): item.question.answer
        for item in items
    }
    return lambda pictures, texts: [
        truth.get((picture.tobytes(), text), "") for picture, text in zip(pictures, texts, strict=True)
    ]


def always_yes(pictures, questions):
    return ["yes"] * len(questions)


def test_whoever_sees_the_picture_can_answer_everything(items):
    results = evaluate_phantoms(items, ask_oracle(items), batch_size=50)
    assert [result.truth for result in results] == [item.question.answer for item in items]
    assert all(result.score == 1 for result in results)


def test_a_constant_answer_is_right_for_half_of_the_closed_questions(items):
    table = summarise(evaluate_phantoms(items, always_yes)).set_index(["kind", "group"])
    assert table.loc[("closed", "all"), "score"] == 50
    assert table.loc[("open", "all"), "score"] == 0


def test_scores_are_grouped_by_whatever_is_asked(items):
    results = evaluate_phantoms(items, always_yes)
    table = summarise(results, domains_of(items))
    assert set(table.group) == {"all", *DOMAINS}
    assert table[table.group != "all"].questions.sum() == len(items)
    whole, by_family = table[table.group == "all"], summarise(results)
    assert whole.score.tolist() == by_family[by_family.group == "all"].score.tolist()


def test_shuffled_pictures_are_never_the_right_ones_and_questions_stay(items):
    other = make_items("test", 1, "shuffled")
    assert [item.question for item in other] == [item.question for item in items]
    donors = {id(item.scene) for item in other}
    assert len(donors) > 50
    assert sum(one.scene == two.scene for one, two in zip(items, other, strict=True)) < 0.05 * len(items)


def test_without_pictures_none_is_shown():
    shown = []

    def respond(pictures, questions):
        shown.extend(pictures)
        return ["yes"] * len(questions)

    evaluate_phantoms(make_items("test", 1, "none"), respond)
    assert set(shown) == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 0), "at least 1"),
        (("test", 1, "wrong"), "right, shuffled, none"),
        (("exam", 1), "splits are"),
    ],
)
def test_an_impossible_benchmark_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_items(*arguments)


@pytest.mark.parametrize(
    ("answer", "truth", "is_closed", "score"),
    [
        ("Yes, there is.", "yes", True, 1),
        ("no yes", "yes", True, 0),
        ("", "yes", True, 0),
        ("a brain MRI.", "brain mri", False, 1),
        ("brain", "brain mri", False, 0.5),
        ("left", "right", False, 0),
    ],
)
def test_answers_are_scored_as_the_paper_scores_vqa(answer, truth, is_closed, score):
    assert score_answer(Question(0, "f", "p", "?", truth, is_closed), answer) == score


def test_results_come_back_from_their_folder(tmp_path, items):
    results = evaluate_phantoms(items, always_yes)
    write_results(results, {"seed": 0}, tmp_path / "run")
    assert read_results(tmp_path / "run") == (results, {"seed": 0})
    header, *rows = (tmp_path / "run" / "scores.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert len(rows) == len(summarise(results))


def test_a_folder_without_results_is_one_error(tmp_path):
    with pytest.raises(ValueError, match="medv evaluate phantoms"):
        read_results(tmp_path)
    (tmp_path / "answers.jsonl").write_text(json.dumps({"answer": "yes"}) + "\n")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no scored answers"):
        read_results(tmp_path)


def test_two_results_are_compared_question_by_question(items):
    right, constant = evaluate_phantoms(items, ask_oracle(items)), evaluate_phantoms(items, always_yes)
    difference = compare(right, constant)
    assert difference["closed"].estimate == pytest.approx(50)
    assert difference["open"].low == pytest.approx(100)
    with pytest.raises(ValueError, match="different questions"):
        compare(right, constant[1:])


def test_an_interval_has_the_width_that_theory_says(items):
    row = summarise(evaluate_phantoms(items, always_yes)).iloc[0]
    half = 1.96 * 50 / np.sqrt(row.questions)
    assert (row.low, row.high) == pytest.approx((50 - half, 50 + half), abs=0.2 * half)
