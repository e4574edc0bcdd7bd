"""Offline judges by what must move their scores, and tables that cannot mix judges."""

from dataclasses import replace

import numpy as np
import pytest

from medv_lab.evaluation.judges import (
    FactJudge,
    OverlapJudge,
    Verdict,
    compare_verdicts,
    count_facts,
    position_bias,
    summarise_verdicts,
)
from medv_lab.phantoms.reports import write_report
from medv_lab.phantoms.scenes import Finding, Scene, make_scenes
from medv_lab.records import Prediction, Question

SCENE = Scene("brain mri", (Finding("tumour", "left", "upper", "large"),), 0)
TRUE = "This is a brain mri. There is a tumour in the left upper zone, large in size."
OTHER_SIDE = "There is a tumour in the right upper zone, large in size."


def verdicts(judge: str, scores: list[float], is_swapped: bool = False) -> list[Verdict]:
    return [Verdict(f"q{number}", judge, 8, score, is_swapped) for number, score in enumerate(scores)]


def test_a_complete_true_description_has_ten_and_silence_one():
    assert count_facts(TRUE, SCENE).score == 10
    assert count_facts("", SCENE).score == 1


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (TRUE.replace(" mri.", "."), {"right": 4, "missing": 1}),  # what is not well-formed says nothing
        (TRUE.replace("left", "right"), {"right": 4, "wrong": 1, "missing": 1}),
        (
            f"{TRUE} The left lower zone shows an infarct, mild in degree.",
            {"right": 5, "wrong": 4, "missing": 0},
        ),
        (f"{TRUE} No tumour is seen.", {"right": 5, "wrong": 1, "contradictions": 1}),
        (f"{TRUE} {OTHER_SIDE}", {"right": 5, "wrong": 1, "contradictions": 1}),
        (f"{TRUE} The image is normal.", {"right": 5, "wrong": 1, "contradictions": 1}),
    ],
)
def test_every_fault_is_counted_and_costs(text, changed):
    count = count_facts(text, SCENE)
    assert {name: getattr(count, name) for name in changed} == changed
    assert 1 < count.score < 10


def test_true_negatives_neither_gain_nor_cost():
    assert count_facts(f"{TRUE} No infarct is seen.", SCENE).score == 10


def test_a_contradiction_costs_more_than_the_false_claim_in_it():
    contradicting = count_facts(f"{TRUE} {OTHER_SIDE}", SCENE)
    assert contradicting.score < replace(contradicting, contradictions=0).score


def test_repetition_costs_in_proportion():
    twice, often = (count_facts(" ".join([TRUE] * times), SCENE) for times in (2, 6))
    stuttering = count_facts(f"{TRUE} the the the", SCENE)
    assert often.score < twice.score < 10
    assert stuttering.score < 10
    assert stuttering.right == 5


def test_the_fact_judge_ranks_truth_above_another_scene_s_description():
    rng, scenes = np.random.default_rng(0), make_scenes("validation", 60)
    texts = [write_report(scene, rng) for scene in scenes]
    questions = [
        Question(str(n), "Describe.", reference=text, kind="detailed_description", truth=scene)
        for n, (text, scene) in enumerate(zip(texts, scenes, strict=True))
    ]
    right = [Prediction(str(n), "s", text) for n, text in enumerate(texts)]
    wrong = [Prediction(str(n), "s", texts[(n + 5) % 60]) for n in range(60)]
    own, other = (FactJudge().judge(questions, said).verdicts for said in (right, wrong))
    assert all(one.relative == 100 for one in own)
    assert compare_verdicts(own, other).low > 20
    with pytest.raises(ValueError, match="no scene is known for question '0'"):
        FactJudge().judge([replace(questions[0], truth=None)], right[:1])
    with pytest.raises(ValueError, match="'1' stands where '0' was asked"):
        FactJudge().judge(questions[:1], right[1:2])


def test_word_overlap_is_symmetric_bounded_and_not_fed_by_repetition():
    def score(candidate, reference):
        question, prediction = Question("q", "?", reference=reference), Prediction("q", "s", candidate)
        return OverlapJudge().judge([question], [prediction]).verdicts[0].candidate_score

    assert score("a large mass", "large mass") == 10
    assert score("nothing", "large mass") == score("", "") == 1
    assert score("mass", "large mass") == score("large mass", "mass")
    assert score("mass mass mass mass", "large mass") < score("mass", "large mass")


def test_a_table_names_judge_and_order_and_averages_over_neither():
    questions = [Question(f"q{n}", "?", tags={"domain": "ct" if n else "mri"}) for n in range(3)]
    mixed = [*verdicts("a", [8, 4, 4]), *verdicts("b", [1, 1, 1]), *verdicts("a", [2, 2, 2], True)]
    table = summarise_verdicts(questions, mixed).set_index(["judge", "order", "group"])
    assert table.loc[("a", "reference first", "all"), "relative"] == pytest.approx(200 / 3)
    assert table.loc[("a", "reference first", "ct"), ["questions", "relative"]].tolist() == [2, 50]
    assert table.loc[("b", "reference first", "all"), "candidate_score"] == 1
    assert table.loc[("a", "candidate first", "mri"), "relative"] == 25
    assert len(table) == 12  # all, the kind, and two domains; of three judges and orders


def test_double_and_foreign_verdicts_are_refused():
    questions = [Question("q0", "?")]
    with pytest.raises(ValueError, match="two scores"):
        summarise_verdicts(questions, [*verdicts("a", [8]), *verdicts("a", [8])])
    with pytest.raises(ValueError, match="'q1'"):
        summarise_verdicts(questions, verdicts("a", [8, 8]))


def test_systems_are_compared_under_one_judge_on_the_same_questions():
    assert compare_verdicts(verdicts("a", [8, 8]), verdicts("a", [4, 4])).estimate == 50
    with pytest.raises(ValueError, match="different judges"):
        compare_verdicts(verdicts("a", [8]), verdicts("b", [8]))
    with pytest.raises(ValueError, match="different questions"):
        compare_verdicts(verdicts("a", [8, 8]), verdicts("a", [8]))


def test_position_bias_needs_both_orders_of_one_judge():
    both = [*verdicts("a", [5, 5]), *verdicts("a", [6, 7], True)]
    assert position_bias(both).estimate == 1.5
    for wrong in (verdicts("a", [5]), [*both, *verdicts("b", [5, 5])]):
        with pytest.raises(ValueError, match="both orders"):
            position_bias(wrong)
