"""Text in lines: every word once, in order, none wider than its line unless it stands alone."""

from itertools import pairwise

import pytest

from medv_lab.views.wrapping import measure, wrap

PARTS = [
    ("Opacity in the ", ""),
    ("left lower lobe", "marked"),
    (", with\npneumonia and a verylongwordindeed.", ""),
]


@pytest.mark.parametrize("width", [30, 80, 1000])
def test_words_keep_their_order_and_their_line(width):
    lines = wrap(PARTS, width, 7)
    words = [word for line in lines for word in line]
    assert [word.text for word in words] == "".join(text for text, _ in PARTS).replace(
        "lobe,", "lobe ,"
    ).split()
    for line in lines:
        assert all(word.left + word.width <= width + 1e-6 for word in line) or len(line) == 1
        assert all(a.left + a.width <= b.left + 1e-6 for a, b in pairwise(line))


def test_marks_stay_with_their_words_and_only_bold_ones_are_wider():
    marked = [word for line in wrap(PARTS, 1000, 7) for word in line if word.mark]
    assert [word.text for word in marked] == ["left", "lower", "lobe"]
    plain = [word for line in wrap(PARTS, 1000, 7, bold=()) for word in line if word.mark]
    assert all(a.width > b.width for a, b in zip(marked, plain, strict=True))
    assert measure("left", 7, True) == pytest.approx(marked[0].width)


def test_a_line_break_begins_a_line():
    assert [line[0].text for line in wrap([("a b\nc", "")], 1000, 7)] == ["a", "c"]


@pytest.mark.parametrize("width", range(20, 90, 3))
def test_a_stop_stays_with_its_word_though_their_marks_differ(width):
    lines = wrap(
        [("It goes ", ""), ("across", "repeated"), (". So it goes", ""), ("!", "repeated")], width, 7
    )
    assert not {line[0].text for line in lines} & {".", "!"}
