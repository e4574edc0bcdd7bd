"""Repetition as pictures: repeated spans of a text marked as in Figure 5 of the paper, and repetition over steps.

LLaDA-MedV (arXiv 2508.01617), Figure 5, marks repeated tokens in red. Here the unit is the word, and bold type or a
line under the words says the same as the colour.
"""

import re
from dataclasses import dataclass
from html import escape

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, ScalarFormatter

from medv_lab.metrics.repetition import looped_spans
from medv_lab.views.style import PALETTE, new_axes
from medv_lab.views.wrapping import Word, wrap

RED = "#c00000"
HEIGHT = 2.4  # inches
LINE_HEIGHT = 1.5  # of the font size
# A word may hold a point, comma, apostrophe or hyphen, as in 1.5 and x-ray.
_WORD = re.compile(r"\w+(?:[.,'’-]\w+)*")
_POINTS_PER_INCH = 72
_SERIES = tuple(zip(PALETTE.values(), ("o", "s", "^", "D", "v", "P", "X", "*"), strict=True))


@dataclass(frozen=True)
class HighlightedText:
    """A text with its repeated spans; shows them in red in a notebook.

    Attributes:
        text: the whole text.
        spans: (start, end) of each repeated span in characters, in order and apart.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    def parts(self) -> list[tuple[str, bool]]:
        """The text cut where spans begin and end: (part, whether it is repeated)."""
        parts, place = [], 0
        for start, end in self.spans:
            parts += [(self.text[place:start], False), (self.text[start:end], True)]
            place = end
        return [(part, marked) for part, marked in [*parts, (self.text[place:], False)] if part]

    def to_html(self) -> str:
        """One element; everything in the text is escaped."""
        style = f"color:{RED};background:none;text-decoration:underline"
        marked = "".join(
            f'<mark style="{style}">{escape(part)}</mark>' if is_marked else escape(part)
            for part, is_marked in self.parts()
        )
        return f'<div style="white-space:pre-wrap">{marked}</div>'

    def _repr_html_(self) -> str:
        return self.to_html()

    def plot(self, *, ax: Axes | None = None, size: float = 8) -> Axes:
        """Write the text into an Axes, wrapped to its present width; repeated spans red and bold.

        Args:
            ax: where to write; a new figure of page width, high enough for the text, by default.
            size: of the letters, points.

        Returns:
            The Axes; its texts are the words, in order.
        """
        if ax is None:
            ax = new_axes("page", 1)
            ax.figure.set_layout_engine("none")
            ax.set_position((0.01, 0.02, 0.98, 0.96))
            lines = self._wrap(_width(ax), size)
            ax.figure.set_figheight((len(lines) + 0.5) * size * LINE_HEIGHT / _POINTS_PER_INCH)
        ax.set_axis_off()
        box = ax.get_window_extent()
        height = box.height / ax.figure.dpi * _POINTS_PER_INCH
        for number, line in enumerate(self._wrap(_width(ax), size)):
            for left, _, word, is_marked in line:
                ax.text(
                    left / _width(ax),
                    1 - (number + 0.5) * size * LINE_HEIGHT / height,
                    word,
                    transform=ax.transAxes,
                    color=RED if is_marked else "black",
                    weight="bold" if is_marked else "normal",
                    fontsize=size,
                    va="center_baseline",
                    parse_math=False,
                )
        return ax

    def _wrap(self, width: float, size: float) -> list[list[Word]]:
        return wrap([(part, "repeated" if marked else "") for part, marked in self.parts()], width, size)


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


def plot_repetition_vs_steps(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Repetition against the number of sampling steps Z, with its intervals; fewer steps to the right.

    Args:
        frame: rows of steps, metric, estimate, low, high, as `repetition_by_steps` makes them; at most 8 metrics.
        ax: where to draw; a new figure of column width by default.

    Returns:
        The Axes; for each metric, in the order of the frame, a line (steps, estimate) and an area from low to high.

    Raises:
        ValueError: if a column is missing.
    """
    needed = ["steps", "metric", "estimate", "low", "high"]
    missing = [name for name in needed if name not in frame]
    if missing:
        raise ValueError(f"the frame lacks {missing}; give one made by repetition_by_steps: {needed}")
    ax = new_axes("column", HEIGHT) if ax is None else ax
    groups = frame.groupby("metric", sort=False)
    for (colour, marker), (metric, rows) in zip(_SERIES[: len(groups)], groups, strict=True):
        rows = rows.sort_values("steps")
        ax.fill_between(rows.steps, rows.low, rows.high, color=colour, alpha=0.2, linewidth=0)
        name = metric.replace("_", " ")
        ax.plot(
            rows.steps, rows.estimate, color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=name
        )
    ticks = sorted(frame.steps.unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.invert_xaxis()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("sampling steps Z")
    ax.set_ylabel("repetition")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


def _width(ax: Axes) -> float:
    return ax.get_window_extent().width / ax.figure.dpi * _POINTS_PER_INCH
