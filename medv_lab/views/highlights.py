"""Repeated spans of a text, marked as in Figure 5 of the paper.

LLaDA-MedV (arXiv 2508.01617), Figure 5, marks repeated tokens in red. Here the unit is the word, and a line under the
words says the same as the colour.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from medv_lab.metrics.repetition import looped_spans

STYLE = "color:#c00000;background:none;text-decoration:underline"
# A word may hold a point, comma, apostrophe or hyphen, as in 1.5 and x-ray.
_WORD = re.compile(r"\w+(?:[.,'’-]\w+)*")


@dataclass(frozen=True)
class HighlightedText:
    """A text with its repeated spans; shows them in red in a notebook.

    Attributes:
        text: the whole text.
        spans: (start, end) of each repeated span in characters, in order and apart.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    def _repr_html_(self) -> str:
        """Return one HTML element; everything in the text is escaped."""
        parts = cut_text(self.text, [(start, end, "repeated") for start, end in self.spans])
        marked = "".join(
            f'<mark style="{STYLE}">{escape(part)}</mark>' if mark else escape(part) for part, mark in parts
        )
        return f'<div style="white-space:pre-wrap">{marked}</div>'


def highlight_repetition(text: str) -> HighlightedText:
    """Find what a text says twice or more in a row: a word or a phrase, whatever its case and punctuation.

    Every repeat is marked, the first saying included, from its first word to its last.
    """
    words = list(_WORD.finditer(text))
    spans: list[tuple[int, int]] = []
    for start, end, _ in looped_spans([word.group().lower() for word in words]):
        first, last = words[start].start(), words[end - 1].end()
        if spans and first < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    return HighlightedText(text, tuple(spans))


def cut_text(text: str, marks: Iterable[tuple[int, int, str]]) -> list[tuple[str, str]]:
    """Cut a text where marks (start, end, name) begin and end.

    Returns:
        (part, name of its mark) in order, "" where there is none; no part is empty.
    """
    parts, at = [], 0
    for start, end, mark in marks:
        parts += [(text[at:start], ""), (text[start:end], mark)]
        at = end
    return [part for part in [*parts, (text[at:], "")] if part[0]]
