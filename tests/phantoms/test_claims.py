"""Claims are marked where they stand, and what is marked true is true of the scene."""

from itertools import pairwise

import numpy as np
import pytest

from medv_lab.phantoms.claims import mark_claims
from medv_lab.phantoms.reports import make_description
from medv_lab.phantoms.scenes import Finding, Scene, make_scenes

SCENE = Scene("chest x-ray", (Finding("nodule", "left", "upper", "two"),), 0)


def words(text: str) -> list[tuple[str, bool]]:
    return [(text[start:end], is_true) for start, end, is_true in mark_claims(text, SCENE)]


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
