"""One palette and one set of sizes, and nothing left behind."""

from itertools import combinations

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb

from medv_lab.views.style import PALETTE, SMALLEST_FONT, WIDTHS, new_axes, themed

CONFUSED = {"protan": ("#ff0000", "#806000"), "deutan": ("#d62728", "#2ca02c")}
# Machado, Oliveira and Fernandes (2009), severity 1: what readers without one kind of cone see of linear RGB.
DEFICIENCIES = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def seen(colour: str, matrix) -> list[float]:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return [sum(weight * part for weight, part in zip(row, linear, strict=True)) for row in matrix]


def distance(first: str, second: str, kind: str) -> float:
    pairs = zip(seen(first, DEFICIENCIES[kind]), seen(second, DEFICIENCIES[kind]), strict=True)
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_no_two_colours_look_the_same_to_colour_blind_readers(kind):
    assert min(distance(*pair, kind) for pair in combinations(PALETTE.values(), 2)) > 0.1
    assert distance(*CONFUSED[kind], kind) < 0.1  # the check can tell


def test_fonts_are_readable_and_the_theme_leaves_nothing_behind():
    before = mpl.rcParams.copy()
    with themed():
        assert mpl.rcParams["font.size"] >= mpl.rcParams["ytick.labelsize"] >= SMALLEST_FONT
        assert new_axes("page", 2).figure.get_size_inches().tolist() == [WIDTHS["page"], 2]
    assert mpl.rcParams == before
