"""Scores by their properties; equality with LLaVA-Med's numbers is checked in tests/parity/check_metrics.py."""

import math

import pytest

from medv_lab.metrics.scoring import (
    ScoreLineError,
    Script,
    VqaItem,
    bleu,
    closed_hit,
    evaluate_vqa,
    exact_match,
    ngrams,
    normalize,
    open_hit,
    parse_scores,
    relative_chat_scores,
    token_recall,
    word_overlap,
)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("couldn'tve", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("Im sure", "im sure"),  # the table's "Im" is never met: words are lower case by then
        ("1,000 x-rays", "1000 xrays"),  # digit,digit removes the hyphen instead of spacing it
        ("x-rays", "x rays"),
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


def test_every_score_is_defined_on_empty_answers():
    assert exact_match("", "mass") == token_recall("", "mass") == bleu("", "mass") == 0
    assert closed_hit("", "no", Script.SINGLE) == closed_hit("", "no", Script.BATCH) == 0
    assert open_hit("", "mass", Script.BATCH) == open_hit("", "mass", Script.SINGLE, ["cyst", ""]) == 0


def test_the_scripts_disagree_where_they_are_known_to():
    assert closed_hit("Left side", "left", Script.SINGLE) == 0
    assert closed_hit("Left side", "left", Script.BATCH) == 1
    assert closed_hit("The lung is normal", "no", Script.SINGLE) == 1


def test_open_hit_of_the_single_script_needs_candidates():
    with pytest.raises(ValueError, match="candidates"):
        open_hit("mass", "mass", Script.SINGLE)


def test_a_mean_over_no_items_is_not_a_number():
    table = evaluate_vqa([VqaItem("CLOSED", "yes", "yes")], Script.BATCH)
    assert table["yes/no accuracy"] == table["recall_closed"] == 100
    assert math.isnan(table["recall"])


def test_an_unknown_answer_type_is_an_error():
    with pytest.raises(ValueError, match="'open'.*'OPEN' and 'CLOSED'"):
        VqaItem("open", "a", "b")


@pytest.mark.parametrize("line", ["8", "8 7 6", "8,7", "8 7 ", " 8 7", "8  7", "0 5", "nan 5", "5 inf", ""])
def test_malformed_score_lines_are_errors(line):
    with pytest.raises(ScoreLineError, match="review"):
        parse_scores(f"{line}\nbecause")


def test_relative_score_is_the_mean_of_ratios_not_the_ratio_of_means():
    rows = [
        {"type": "conversation", "domain": {"mri": True, "ct_scan": True}, "result": "10 5"},
        {"type": "conversation", "domain": {"mri": False}, "result": "2 2\nboth"},
    ]
    scores = relative_chat_scores(rows)
    assert scores["all"]["pred_relative_score"] == pytest.approx(75)
    assert scores.keys() == {"all", "conversation", "mri", "none"}
    assert relative_chat_scores([]) == {}


def test_ngrams_are_all_runs_of_neighbours():
    assert ngrams("abcab", 3) == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    assert ngrams("ab", 3) == []
    with pytest.raises(ValueError, match="n is 0"):
        ngrams("ab", 0)
