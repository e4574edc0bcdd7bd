"""Repeated spans are marked whole and as text; curves draw the table they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from medv_lab.metrics.repetition import repetition_by_steps
from medv_lab.views.highlights import RED, HighlightedText, highlight_repetition, plot_repetition_vs_steps
from tests.views.test_page import Reader


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("", []),
        ("lung", []),
        ("The lung is clear.", []),
        ("The the lung", ["The the"]),
        ("a clear lung, a clear lung. No mass", ["a clear lung, a clear lung"]),
        ("no no mass mass", ["no no", "mass mass"]),
        ("no no mass no no mass", ["no no mass no no mass"]),
        ("of 1.5 to 1.6 cm", []),
        ("the $x_1$ is <b> b", ["b> b"]),
        ("the lung\nthe lung", ["the lung\nthe lung"]),
    ],
)
def test_what_is_said_at_once_again_is_marked(text, marked):
    highlighted = highlight_repetition(text)
    assert [text[start:end] for start, end in highlighted.spans] == marked
    assert "".join(part for part, _ in highlighted.parts()) == text
    assert [part for part, is_marked in highlighted.parts() if is_marked] == marked


@pytest.mark.parametrize("text", ["<script>x</script> <script>x</script>", '&amp; " no no', "no no <b>"])
def test_html_shows_the_text_and_nothing_else(text):
    highlighted = highlight_repetition(text)

    class Text(Reader):
        def handle_data(self, data):
            self.data += data

    page = Text(highlighted._repr_html_())
    assert page.data == text
    assert [tag for tag, _ in page.tags] == ["div", *["mark"] * len(highlighted.spans)]
    assert highlighted.spans


def test_words_are_written_in_order_and_repeated_ones_are_red_and_bold():
    text = "The lung lung shows $x$ and\nno mass no mass here"
    ax = highlight_repetition(text).plot()
    assert [word.get_text() for word in ax.texts] == text.split()
    red = [word.get_text() for word in ax.texts if same_color(word.get_color(), RED)]
    assert red == ["lung", "lung", "no", "mass", "no", "mass"]
    assert red == [word.get_text() for word in ax.texts if word.get_weight() == "bold"]
    rows = [word.get_position()[1] for word in ax.texts]
    assert len(set(rows)) == 2 and rows == sorted(rows, reverse=True)


@pytest.mark.parametrize("width", [2.5, 7])
def test_words_stay_in_the_axes_and_apart(width):
    figure, ax = plt.subplots(figsize=(width, 6))
    words = "opacity in the the left lower lobe, consistent with with pneumonia. " * 6
    assert highlight_repetition(words).plot(ax=ax) is ax
    figure.canvas.draw()
    boxes = [word.get_window_extent() for word in ax.texts]
    frame = ax.get_window_extent()
    assert all(frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 2 for box in boxes)
    lines = [word.get_position()[1] for word in ax.texts]
    pairs = zip(boxes, boxes[1:], lines, lines[1:], strict=False)
    assert all(first.x1 < second.x0 for first, second, line, other in pairs if line == other)
    assert len(set(lines)) > 2


def test_the_object_is_plain_data():
    assert highlight_repetition("no no") == HighlightedText("no no", ((0, 5),))


def test_curves_and_areas_are_the_table():
    random = np.random.default_rng(0)
    answers = pd.DataFrame(
        {"steps": np.repeat([16, 4, 8], 5), "rep_1": random.random(15), "looped": random.random(15)}
    )
    table = repetition_by_steps(answers, ("rep_1", "looped"))
    ax = plot_repetition_vs_steps(table.sample(frac=1, random_state=0).sort_values("metric"))
    assert [line.get_label() for line in ax.lines] == ["looped", "rep 1"]
    for line, area, metric in zip(ax.lines, ax.collections, ("looped", "rep_1"), strict=True):
        rows = table[table.metric == metric]
        np.testing.assert_array_equal(line.get_xdata(), [4, 8, 16])
        np.testing.assert_array_equal(line.get_ydata(), rows.estimate)
        corners = {tuple(corner) for corner in area.get_paths()[0].vertices}
        assert (
            set(zip(rows.steps, rows.low, strict=True)) | set(zip(rows.steps, rows.high, strict=True))
            == corners
        )
    assert ax.xaxis_inverted()


def test_curves_are_drawn_on_the_axes_they_are_given_and_need_intervals():
    table = pd.DataFrame({"steps": [4], "metric": ["looped"], "estimate": [0.2], "low": [0.1], "high": [0.3]})
    ax = plt.subplots()[1]
    assert plot_repetition_vs_steps(table, ax=ax) is ax
    with pytest.raises(ValueError, match=r"lacks \['low', 'high'\]"):
        plot_repetition_vs_steps(table[["steps", "metric", "estimate"]])
