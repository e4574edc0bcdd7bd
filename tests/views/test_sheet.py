"""A sheet writes every word once and in order, marks what is marked, and keeps to its width."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import same_color

from medv_lab.views.sheet import MARGIN, MARKS, Sheet, measure, wrap
from medv_lab.views.style import POINTS_PER_INCH, themed

TEXT = "Opacity in the left lower lobe, consistent with pneumonia. " * 4
PARTS = [
    ("Opacity in the ", ""),
    ("left lower lobe", "right"),
    (", with\npneumonia and a verylongwordindeed.", ""),
]


def test_words_stay_where_they_are_put_and_the_sheet_grows_with_them():
    sheet = Sheet(3)
    bottom = sheet.write([(TEXT, "")], 20, 10, 100)
    with themed():
        figure = sheet.finish()
        figure.draw_without_rendering()
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == TEXT.split()
    boxes = [text.get_window_extent().transformed(ax.transData.inverted()) for text in ax.texts]
    assert all(box.x0 >= 19.5 and box.x1 <= 120.5 for box in boxes)
    assert all(min(box.y0, box.y1) >= 9.5 and max(box.y0, box.y1) <= bottom + 0.5 for box in boxes)
    assert figure.get_figheight() == pytest.approx((bottom + MARGIN) / POINTS_PER_INCH)


def test_marks_differ_without_their_colour():
    shapes = {(is_bold, is_underlined) for _, is_bold, is_underlined in (MARKS["right"], MARKS["wrong"])}
    assert len(shapes) == 2 and (False, False) not in shapes
    sheet = Sheet(3)
    sheet.write([("one ", ""), ("two ", "right"), ("three", "wrong")], 0, 0, 200)
    (ax,) = sheet.finish().axes
    one, two, three = ax.texts
    assert same_color(two.get_color(), MARKS["right"][0]) and two.get_weight() == "bold"
    assert same_color(three.get_color(), MARKS["wrong"][0]) and three.get_weight() == "normal"
    assert same_color(one.get_color(), "black") and len(ax.lines) == 1  # the line under the third


def test_pictures_keep_their_shape_in_the_square_they_are_given():
    sheet = Sheet(3)
    sheet.show(np.zeros((10, 20, 3), np.uint8), 5, 7, 40)
    (image,) = sheet.finish().axes[0].images
    left, right, bottom, top = image.get_extent()
    assert (left, right) == (5, 45) and (top, bottom) == (17, 37)


def test_plots_get_the_room_they_ask_for():
    sheet = Sheet(2)
    ax = sheet.plot(14.4, 10, 72, 50)
    figure = sheet.finish()
    box = ax.get_position()
    assert (box.x0, box.width) == (pytest.approx(0.1), pytest.approx(0.5))
    assert box.height * figure.get_figheight() * POINTS_PER_INCH == pytest.approx(50)


@pytest.mark.parametrize("width", [30, 80, 1000])
def test_words_keep_their_order_and_their_line(width):
    lines = wrap(PARTS, width)
    words = [word for line in lines for word in line]
    assert "".join(word.text for word in words) == "".join("".join(text for text, _ in PARTS).split())
    for line in lines:
        assert all(word.left + word.width <= width + 1e-6 for word in line) or len(line) == 1
        assert all(a.left + a.width <= b.left + 1e-6 for a, b in pairwise(line))


def test_marks_stay_with_their_words_and_only_bold_ones_are_wider():
    marked = [word for line in wrap(PARTS, 1000) for word in line if word.mark]
    assert [word.text for word in marked] == ["left", "lower", "lobe"]
    thin = [(text, "wrong" if mark else "") for text, mark in PARTS]
    plain = [word for line in wrap(thin, 1000) for word in line if word.mark]
    assert all(a.width > b.width for a, b in zip(marked, plain, strict=True))
    assert measure("left", True) == pytest.approx(marked[0].width)


def test_a_line_break_begins_a_line():
    assert [line[0].text for line in wrap([("a b\nc", "")], 1000)] == ["a", "c"]


@pytest.mark.parametrize("width", range(20, 90, 3))
def test_a_stop_stays_with_its_word_though_their_marks_differ(width):
    parts = [("It goes ", ""), ("across", "repeated"), (". So it goes", ""), ("!", "repeated")]
    lines = wrap(parts, width)
    assert not {line[0].text for line in lines} & {".", "!"}
