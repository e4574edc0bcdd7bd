"""Glue between data sets and evaluation: nothing is lost on the way, intervals are around the scripts' own numbers."""

import pandas as pd
import pytest

from medv_lab.data.chatbot import read_chatbot
from medv_lab.data.vqa import read_vqa
from medv_lab.evaluation.benchmarks import (
    answer_candidates,
    chat_cases,
    summarise_effort,
    summarise_vqa,
    to_queries,
    vqa_items,
)
from medv_lab.evaluation.runner import Answered
from medv_lab.metrics.scoring import Script, VqaItem, evaluate_vqa
from tests.data.released import make_chatbot, make_vqa_rad

ITEMS = [
    VqaItem("OPEN", "left lung", "the left lung"),
    VqaItem("OPEN", "a cyst", "a mass"),
    VqaItem("OPEN", "two", "2 nodules"),
    VqaItem("CLOSED", "yes", "Yes, there is."),
    VqaItem("CLOSED", "no", "yes"),
]


def test_a_question_becomes_a_query_and_an_item(tmp_path):
    questions = [one for one in read_vqa("vqa-rad", make_vqa_rad(tmp_path)).questions if one.split == "train"]
    queries = to_queries(questions)
    assert [(one.id, one.text, one.image) for one in queries] == [
        (one.id, one.text, one.image) for one in questions
    ]
    assert {query.image for query in to_queries(questions, with_pictures=False)} == {None}
    items = vqa_items(questions, ["x", "y", "z"])
    assert [(one.answer_type, one.reference) for one in items] == [
        ("CLOSED", "Yes"),
        ("OPEN", "4"),
        ("OPEN", "superficial"),
    ]
    with pytest.raises(ValueError, match="shorter"):
        vqa_items(questions, ["x"])


def test_candidates_are_the_open_answers_of_training(tmp_path):
    assert answer_candidates(read_vqa("vqa-rad", make_vqa_rad(tmp_path)).questions) == ["4", "superficial"]


@pytest.mark.parametrize("script", Script)
def test_estimates_are_the_script_s_and_lie_in_their_intervals(script):
    candidates = ["left lung", "cyst"]
    table = summarise_vqa(ITEMS, candidates)
    own = table[table.script == script.value].set_index("metric")
    assert own.score.to_dict() == pytest.approx(evaluate_vqa(ITEMS, script, candidates), abs=1e-9)
    assert ((own.low <= own.score) & (own.score <= own.high)).all()
    assert own.questions["recall"] == 3
    assert own.questions["yes/no accuracy"] == 2


def test_without_candidates_nothing_is_said_of_them():
    table = summarise_vqa(ITEMS)
    assert list(table[table.metric == "open accuracy"].script) == ["batch"]
    assert set(summarise_vqa(ITEMS[3:]).metric) == {"yes/no accuracy", "recall_closed"}


def test_a_benchmark_row_becomes_a_query_and_a_case(tmp_path):
    folder = make_chatbot(tmp_path)
    questions = read_chatbot(folder, folder / "images").questions
    assert [query.text for query in to_queries(questions)] == ["What is the organ?"] * 2
    first, second = chat_cases(questions, ["an ear", "a nose"])
    assert (first.reference, first.candidate, first.caption) == (
        "The organ is the eye.",
        "an ear",
        "A cyst of the conjunctiva.",
    )
    assert first.context == "Cells were not found ( Fig. 3 ) ."
    assert (first.groups, second.groups) == (
        ("conversation", "histology"),
        ("detailed_description", "histology"),
    )


def answered(words: int, seconds: float, passes: int | None) -> Answered:
    return Answered("k", "s", "q", "?", "x", words, seconds, passes, 1)


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
