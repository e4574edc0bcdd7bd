"""Scores by their properties; equality with LLaVA-Med's numbers is checked in tests/parity/check_metrics.py."""

import math

import pytest

from medv_lab.metrics.scoring import (
    BLEU_WEIGHTS,
    SAYS_BOTH,
    ScoreLineError,
    bleu,
    closed_hit,
    evaluate_vqa,
    exact_match,
    ngrams,
    normalize,
    open_hit,
    parse_scores,
    said_yes_no,
    score_vqa,
    token_recall,
    word_overlap,
)
from medv_lab.records import Question


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("couldn'tve", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("Im sure", "im sure"),  # the table's "Im" is never met: words are lower case by then
        ("1,000 x-rays", "1000 xrays"),  # digit,digit removes the hyphen instead of spacing it
        ("x-rays", "x rays"),
        ("x-rays -a", "xrays"),  # a mark beside a space is removed everywhere, not spaced
        ("x-rays a- b", "xrays b"),
    ],
)
def test_normal_form(text, form):
    assert normalize(text) == form


def test_only_the_first_32_periods_are_removed():
    assert normalize("b. " * 32 + "c.") == "b " * 32 + "c."


def test_saying_a_right_word_often_costs_no_precision_but_exact_match():
    said = word_overlap("mass mass mass", "mass")
    assert (said.f1, said.precision, said.recall) == (1, 1, 1)
    assert exact_match("mass mass mass", "mass") == pytest.approx(1 / 3)


def test_overlaps_equal_those_computed_by_hand():
    said = word_overlap("mass lung", "mass cyst node")
    assert (said.f1, said.precision, said.recall) == pytest.approx((2 / 5, 1 / 2, 1 / 3))
    assert word_overlap("cyst", "mass") == (0, 0, 0)
    assert exact_match("mass lung", "mass cyst node") == 1 / 2


def test_bleu_equals_the_one_computed_by_hand():
    # n-grams shared: 5 of 6, 3 of 5, 2 of 4, 1 of 3; longer than the reference, so that brevity costs nothing
    texts = "mass in left upper lung lobe", "mass in left upper lobe"
    assert bleu(*texts) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    precisions = {"bleu_1": 5 / 6, "bleu_2": 3 / 5, "bleu_3": 2 / 4}
    assert {name: bleu(*texts, BLEU_WEIGHTS[name]) for name in precisions} == pytest.approx(precisions)
    assert bleu("mass in left lung", texts[1], (1,)) == pytest.approx(3 / 4 * math.exp(1 - 5 / 4))
    assert bleu("mass mass", "mass", (1,)) == 1 / 2  # a word counts as often as the reference has it
    assert bleu("mass", "mass", (1, 0)) == 1
    assert bleu("cyst", "mass", (1,)) == 0


def test_the_candidate_with_the_largest_part_of_its_words_said_is_chosen():
    names = ["cyst or mass in lung", "cyst", "no cyst"]
    assert open_hit("cyst", "cyst", "llava_med", names) == 1
    assert open_hit("cyst", "no cyst", "llava_med", names) == 0
    assert open_hit("no cyst", "cyst", "llava_med", names) == 1  # the first of equals
    assert open_hit("node", "cyst", "llava_med", ["", "cyst"]) == 0  # nothing is said of either: the first
    assert open_hit("cyst", "cyst", "llava_med", ["", "cyst"]) == 1


def test_a_table_equals_the_one_computed_by_hand():
    reference = "mass in left upper lobe"
    questions = [
        Question("1", "?", reference=reference, kind="open"),
        Question("2", "?", reference="cyst", kind="open"),
        Question("3", "?", reference="yes", kind="closed"),
        Question("4", "?", reference="yes", kind="closed"),
    ]
    answers = ["mass in left upper lung lobe", "cyst", "Yes.", "No."]
    expected = {
        "exact match score": 100 * 11 / 12,
        "f1 score": 100 * 21 / 22,
        "precision": 100 * 11 / 12,
        "recall": 100,
        "bleu_score": 50 * (1 / 12) ** 0.25,
        "bleu_score_1": 100 * 11 / 12,
        "bleu_score_2": 30,
        "bleu_score_3": 25,
        "open accuracy": 50,
        "yes/no accuracy": 50,
        "recall_closed": 50,
    }
    assert evaluate_vqa(questions, answers, "llava_med_batch") == pytest.approx(expected)
    del expected["recall_closed"]
    candidates = [reference, "cyst", 7]
    found = evaluate_vqa(questions, answers, "llava_med", candidates)
    assert found == pytest.approx(expected | {"open accuracy": 100})
    with pytest.raises(ValueError):
        evaluate_vqa(questions, answers[:3], "llava_med_batch")


def test_every_score_is_defined_on_empty_answers():
    assert exact_match("", "mass") == token_recall("", "mass") == bleu("", "mass") == 0
    assert closed_hit("", "no", "llava_med") == closed_hit("", "no", "llava_med_batch") == 0
    assert open_hit("", "mass", "llava_med_batch") == open_hit("", "mass", "llava_med", ["cyst", ""]) == 0


def test_the_scripts_disagree_where_they_are_known_to():
    assert closed_hit("Left side", "left", "llava_med") == 0
    assert closed_hit("Left side", "left", "llava_med_batch") == 1
    assert closed_hit("The lung is normal", "no", "llava_med") == 1
    with pytest.raises(ValueError, match="candidates"):
        open_hit("mass", "mass", "llava_med")


def test_a_mean_over_no_items_is_not_a_number():
    table = evaluate_vqa([Question("q", "?", reference="yes", kind="closed")], ["yes"], "llava_med_batch")
    assert table["yes/no accuracy"] == table["recall_closed"] == 100
    assert math.isnan(table["recall"])


@pytest.mark.parametrize(
    ("answer", "truth", "kind", "score"),
    [
        ("Yes, there is.", "yes", "closed", 1),
        ("no yes", "yes", "closed", 0),
        ("It is yes", "yes", "closed", 1),
        ("Yes and no.", "yes", "closed", 0),
        ("yes/no", "no", "closed", 0),
        ("NO", "no", "closed", 1),
        ("No - I think", "No ", "closed", 1),
        ("The lung is normal, note that", "no", "closed", 0),
        ("yesterday", "yes", "closed", 0),
        ("", "yes", "closed", 0),
        ("Left side.", "left", "closed", 1),
        ("right, not left", "left", "closed", 0),
        ("The AP view", "ap", "closed", 0),
        ("a brain MRI.", "brain mri", "open", 1),
        ("brain", "brain mri", "open", 0.5),
        ("a brain MRI.", "brain", "open", 1),
        ("brain", "", "open", 0),
        ("chest", "chest x-ray", "open", 0.5),
        ("left", "right", "open", 0),
    ],
)
def test_strict_scores_read_plain_words(answer, truth, kind, score):
    assert score_vqa(Question("q", "?", reference=truth, kind=kind), answer, "strict") == score


def test_the_variants_differ_where_they_are_known_to():
    assert [closed_hit("It is abnormal", "no", name) for name in ("llava_med", "strict")] == [1, 0]
    assert token_recall("chest", "chest x-ray") == pytest.approx(1 / 3)  # the hyphen parts words there
    with pytest.raises(ValueError, match="allowed are llava_med, llava_med_batch, strict"):
        closed_hit("yes", "yes", "lenient")
    with pytest.raises(ValueError, match="allowed are llava_med, llava_med_batch, strict"):
        token_recall("yes", "yes", "lenient")
    with pytest.raises(ValueError, match="allowed are llava_med, llava_med_batch$"):
        open_hit("mass", "mass", "strict", ["mass"])
    with pytest.raises(ValueError, match="allowed are llava_med, llava_med_batch$"):
        evaluate_vqa([], [], "strict")


def test_scores_are_read_from_the_first_line():
    assert parse_scores("8 7.5\n3 4\nbecause") == (8, 7.5)


@pytest.mark.parametrize("line", ["8", "8 7 6", "8,7", "8 7 ", " 8 7", "8  7", "0 5", "nan 5", "5 inf", ""])
def test_malformed_score_lines_are_errors(line):
    with pytest.raises(ScoreLineError, match="review"):
        parse_scores(f"{line}\nbecause")


def test_ngrams_are_all_runs_of_neighbours():
    assert ngrams("abcab", 3) == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    assert ngrams("ab", 3) == []


@pytest.mark.parametrize("true", ["yes", "no", "Yes", " no"])
@pytest.mark.parametrize(
    "answer", [SAYS_BOTH, "no yes", "Yes or no?", "I say yes, she says no.", "unknown", ""]
)
def test_case_1_an_answer_that_says_both_or_neither_is_wrong_in_whole_words(answer, true):
    assert closed_hit(answer, true, "strict") == 0
    assert said_yes_no(answer) in ("both", "neither")
    assert closed_hit(SAYS_BOTH, true.strip(), "llava_med") == 1  # the script takes it for right


def test_what_is_said_is_a_whole_word():
    said = {"Yes.": "yes", "NO!": "no", "normal, not noted": "neither", "yes, no": "both", "": "neither"}
    assert {text: said_yes_no(text) for text in said} == said
