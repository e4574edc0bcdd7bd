"""Scores are read where one reading is possible, and nowhere else."""

import itertools
import random

import pytest

from medv_lab.evaluation.score_lines import read_scores
from medv_lab.metrics.scoring import parse_scores

SEPARATORS = (" ", ", ", ",", "  ", "\t", "; ", " | ", " and ", " & ", "\u00a0")
FORMS = ("{}", "**{}**", "{}/10", "{} / 10", "**{}/10**", "{} out of 10", "`{}`", "[{}]")


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_two_scores_is_read(form, separator):
    rng = random.Random(form + separator)
    for ending in ("", " ", "  \n", ".\n", "\r\nThe first answer names 3 of 4 findings.", "\n8 9"):
        first, second = rng.choice([1, 2.5, 7, 10]), rng.choice([1, 3, 8.25, 10])
        assert read_scores(f"{form.format(first)}{separator}{form.format(second)}{ending}") == (first, second)


@pytest.mark.parametrize(
    "reply",
    [
        "\n\n 8 9",
        "Scores: 8 9",
        "**Scores:** 8/10, 9/10",
        "Assistant 1: 8, Assistant 2: 9",
        "Assistant 1: 8/10\n\nAssistant 2: 9/10\n\nbecause",
        "Rating for answer A = 8\nRating for answer B = 9",
        "8\n9\nreasons",
        "(8, 9)",
    ],
)
def test_labels_and_lines_of_their_own_are_read(reply):
    assert read_scores(reply) == (8, 9)


@pytest.mark.parametrize(
    "reply",
    [
        *("", "8", "8/10", "8.5", "9 out of 10", "8-9", "8 to 9", "8/9", "8 9 7", "8, 9, 10", "8\n9\n10"),
        *(
            "1. 8\n2. 9",
            "8/5 9/5",
            "8 9/5",
            "80 90",
            "8/10/9/10",
            "11 9",
            "0 5",
            "-8 9",
            "nan 9",
            "inf 9",
            "8e0 9",
        ),
        *("8 9 because", "Good: 8 9, or 9 9", "eight nine", "Assistant 2: 9, Assistant 1: 8", "{" * 10_000),
        "Assistant 2: 9\nAssistant 1: 8",
    ],
)
def test_what_has_no_single_reading_is_not_read(reply):
    assert read_scores(reply) is None


def test_what_the_strict_reader_takes_is_read_alike():
    for first, second in itertools.product(("1", "7", "8.5", "10"), repeat=2):
        assert read_scores(f"{first} {second}\nwhy") == parse_scores(f"{first} {second}\nwhy")
