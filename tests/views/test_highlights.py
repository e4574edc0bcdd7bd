"""Repeated spans are marked whole and as text."""

import pytest

from medv_lab.views.highlights import cut_text, highlight_repetition
from tests.views.test_page import Reader


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
    parts = cut_text(text, [(*span, "repeated") for span in highlighted.spans])
    assert "".join(part for part, _ in parts) == text
    assert [part for part, mark in parts if mark] == marked


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
