"""Scores of benchmarks: intervals are around the scripts' own numbers, phantoms by what must move their scores."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medv_lab.data.vqa import read_vqa
from medv_lab.evaluation.benchmarks import (
    PHANTOM_COLUMNS,
    answer_candidates,
    score_phantoms,
    summarise_descriptions,
    summarise_effort,
    summarise_phantoms,
    summarise_vqa,
)
from medv_lab.evaluation.runner import answer_all
from medv_lab.metrics.scoring import LLAVA_MED_VARIANTS, evaluate_vqa
from medv_lab.phantoms.benchmark import make_descriptions, make_questions
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.records import Prediction, Question
from tests.data.released import make_vqa_rad
from tests.evaluation.scripted import Oracle, Scripted

TEXTS = {"left lung": "the left lung", "a cyst": "a mass", "two": "2 nodules"}
QUESTIONS = [Question(true, "?", reference=true) for true in TEXTS]
QUESTIONS += [Question(f"closed {true}", "?", reference=true, kind="closed") for true in ("yes", "no")]
ANSWERS = [*TEXTS.values(), "Yes, there is.", "yes"]


def as_predictions(questions, texts):
    return [Prediction(one.id, "system", text) for one, text in zip(questions, texts, strict=True)]


def test_candidates_are_the_open_answers_of_training(tmp_path):
    assert answer_candidates(read_vqa("vqa-rad", make_vqa_rad(tmp_path)).questions) == ["4", "superficial"]


@pytest.mark.parametrize("variant", LLAVA_MED_VARIANTS)
def test_estimates_are_the_script_s_and_lie_in_their_intervals(variant):
    candidates = ["left lung", "cyst"]
    table = summarise_vqa(QUESTIONS, as_predictions(QUESTIONS, ANSWERS), candidates)
    own = table[table.variant == variant].set_index("metric")
    expected = evaluate_vqa(QUESTIONS, ANSWERS, variant, candidates)
    assert own.score.to_dict() == pytest.approx(expected, abs=1e-9)
    assert ((own.low <= own.score) & (own.score <= own.high)).all()
    assert own.questions["recall"] == 3
    assert own.questions["yes/no accuracy"] == 2


def test_without_candidates_nothing_is_said_of_them():
    table = summarise_vqa(QUESTIONS, as_predictions(QUESTIONS, ANSWERS))
    assert list(table[table.metric == "open accuracy"].variant) == ["llava_med_batch"]
    closed = summarise_vqa(QUESTIONS[3:], as_predictions(QUESTIONS[3:], ANSWERS[3:]))
    assert set(closed[closed.variant != "strict"].metric) == {
        *("yes/no accuracy", "recall_closed"),
        "yes/no accuracy of 'yes no'",
    }


def test_case_1_saying_both_wins_by_the_script_only_and_a_warning_says_so():
    questions = [
        Question(str(number), "?", reference=true, kind="closed")
        for number, true in enumerate(["yes", "no"] * 5)
    ]
    with pytest.warns(
        UserWarning, match="is 100.0 by LLaVA-Med's script and 0.0 in whole words.* 10 say both"
    ):
        table = summarise_vqa(questions, as_predictions(questions, ["yes no"] * 10)).set_index(
            ["variant", "metric"]
        )
    assert table.score["llava_med", "yes/no accuracy"] == table.score["strict", "both or neither"] == 100
    assert table.score["strict", "yes/no accuracy"] == 0
    with pytest.warns(UserWarning, match="4 of 10 answers count otherwise; 0 say both yes and no, 6 neither"):
        own = as_predictions(questions, ["yes", "normal"] * 4 + ["", "?"])
        table = summarise_vqa(questions, own).set_index(["variant", "metric"])
    assert (table.score["strict", "yes/no accuracy"], table.score["strict", "both or neither"]) == (40, 60)
    assert table.score["control (llava_med)", "yes/no accuracy of 'yes no'"] == 100
    assert table.score["control (strict)", "yes/no accuracy of 'yes no'"] == 0


def test_plain_answers_give_no_warning(recwarn):
    questions = [
        Question(str(number), "?", reference=true, kind="closed") for number, true in enumerate(["yes", "no"])
    ]
    summarise_vqa(questions, as_predictions(questions, ["Yes.", "no"]))
    assert not [one for one in recwarn if "whole words" in str(one.message)]


def test_answers_to_other_questions_are_refused():
    with pytest.raises(ValueError, match="4 answers were given to 5 questions"):
        summarise_vqa(QUESTIONS, as_predictions(QUESTIONS[1:], ANSWERS[1:]))


@pytest.fixture(scope="module")
def phantoms():
    return make_questions("test", 1)


def say_yes(questions):
    return answer_all(questions, Scripted("yes", 8, "yes"))


def test_whoever_sees_the_picture_can_answer_everything(phantoms):
    assert set(score_phantoms(phantoms, answer_all(phantoms, Oracle()))) == {1}
    blind = [replace(question, image=None) for question in phantoms]
    assert set(score_phantoms(phantoms, answer_all(blind, Oracle()))) == {0}


def test_a_constant_answer_is_right_for_half_of_the_closed_questions(phantoms):
    table = summarise_phantoms(phantoms, say_yes(phantoms))
    assert tuple(table.columns) == PHANTOM_COLUMNS
    table = table.set_index(["kind", "group"])
    assert table.loc[("closed", "all"), "score"] == 50
    assert table.loc[("open", "all"), "score"] == 0


def test_scores_are_grouped_by_whatever_is_asked(phantoms):
    answers = say_yes(phantoms)
    table, by_family = (summarise_phantoms(phantoms, answers, by) for by in ("domain", "family"))
    assert set(table.group) == {"all", *DOMAINS}
    assert table[table.group != "all"].questions.sum() == len(phantoms)
    whole = table[table.group == "all"]
    assert whole.score.tolist() == by_family[by_family.group == "all"].score.tolist()


def test_an_interval_has_the_width_that_theory_says(phantoms):
    row = summarise_phantoms(phantoms, say_yes(phantoms)).iloc[0]
    half = 1.96 * 50 / np.sqrt(row.questions)
    assert (row.low, row.high) == pytest.approx((50 - half, 50 + half), abs=0.2 * half)


def answered(words: int, seconds: float, passes: int | None) -> Prediction:
    return Prediction("q", "s", "x " * words, passes=passes, seconds=seconds)


def test_effort_is_table_3_s():
    found = summarise_effort([answered(10, 2.0, 4), answered(30, 4.0, 8)])
    assert found == pytest.approx(
        {
            "seconds_per_question": 3,
            "words_per_question": 20,
            "seconds_per_word": 0.15,
            "passes_per_question": 6,
        }
    )
    unknown = summarise_effort([answered(0, 2.0, None), answered(0, 1.0, 3)])
    assert pd.isna(unknown["seconds_per_word"])
    assert pd.isna(unknown["passes_per_question"])


@pytest.fixture(scope="module")
def descriptions():
    return make_descriptions("test", 100)


def test_controls_stand_below_the_descriptions(descriptions):
    table = summarise_descriptions(descriptions, answer_all(descriptions, Oracle()))
    assert list(dict.fromkeys(table.system)) == ["oracle", "reference", "another picture", "word salad"]
    assert set(table.descriptions) == {100}
    scores = table.pivot(index="system", columns="measure", values="score")
    passes = scores.pop("passes")
    assert passes["oracle"] == 3 and passes.drop("oracle").isna().all()
    pd.testing.assert_series_equal(scores.loc["oracle"], scores.loc["reference"], check_names=False)
    assert scores.loc["reference", ["facts", "precision", "recall", "well-formed"]].tolist() == [100] * 4
    assert scores.loc["reference", ["repeated", "contradictions"]].tolist() == [0, 0]
    assert scores.loc["another picture", "well-formed"] == 100
    assert scores.facts["word salad"] < 10 < scores.facts["another picture"] < 50
    assert scores.words["word salad"] == scores.words["reference"]


def test_faults_of_descriptions_are_measured_with_their_intervals(descriptions):
    ill = Scripted("ill", 8, "This is a brain mri. This is a brain mri. The image image is normal.")
    table = summarise_descriptions(descriptions, answer_all(descriptions, ill))
    own = table[table.system == "ill"].set_index("measure")
    assert own.score["adjacent duplicates"] == pytest.approx(100 / 14)
    assert own.score["well-formed"] == pytest.approx(100 * 10 / 15)
    assert own.score["repeated"] == pytest.approx(100 / 3)
    assert own.score.recall < own.score.precision == pytest.approx(20)  # one of five domains
    assert own.low.precision == pytest.approx(20 - 8, abs=2) and own.high.precision == pytest.approx(
        28, abs=2
    )
