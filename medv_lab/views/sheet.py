"""A page that grows downwards: wrapped texts with marked words, pictures and plots, legible in print.

Everything is laid out in points from the top left corner; the height is known in the end, and `finish` sets it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from medv_lab.views.style import ACCENT, PALETTE, POINTS_PER_INCH

TEXT_SIZE = 6.5
LINE_HEIGHT = 1.32 * TEXT_SIZE
MARGIN = 3
Parts = Sequence[tuple[str, str]]  # (text, mark) in order

# Mark: colour, bold, line under the words. Each differs from the others without its colour.
MARKS = {
    "": ("black", False, False),
    "right": (PALETTE["blue"], True, False),
    "wrong": (ACCENT, False, True),
    "repeated": (ACCENT, True, False),
    "label": ("black", True, False),
    "quiet": ("#595959", False, False),
}


class Sheet:
    """A page of fixed width.

    Attributes:
        width: points.
        bottom: lowest point used so far, points from the top.
    """

    def __init__(self, inches: float) -> None:
        self.width = inches * POINTS_PER_INCH
        self.bottom: float = MARGIN
        self._figure = plt.figure()
        self._ax = self._figure.add_axes((0, 0, 1, 1))
        self._plots: list[tuple[Axes, float, float, float, float]] = []

    def write(self, parts: Parts, left: float, top: float, width: float) -> float:
        """Write wrapped text; returns its bottom."""
        lines = wrap(parts, width)
        for number, line in enumerate(lines):
            y = top + (number + 0.5) * LINE_HEIGHT
            for word in line:
                colour, is_bold, is_underlined = MARKS[word.mark]
                weight, x = "bold" if is_bold else "normal", left + word.left
                look = {"fontsize": TEXT_SIZE, "va": "center_baseline", "parse_math": False}
                self._ax.text(x, y, word.text, color=colour, weight=weight, **look)
                if is_underlined:
                    self._line([x, x + word.width], y + 0.46 * TEXT_SIZE, colour, 0.6)
        return self._reach(top + len(lines) * LINE_HEIGHT)

    def show(self, picture: np.ndarray, left: float, top: float, size: float) -> None:
        """Put a picture into a square of `size` points, its shape kept."""
        height, width = picture.shape[:2]
        scale = size / max(height, width)
        x, y = left + (size - width * scale) / 2, top + (size - height * scale) / 2
        extent = (x, x + width * scale, y + height * scale, y)
        self._ax.imshow(picture, extent=extent, interpolation="nearest")
        self._reach(top + size)

    def plot(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes to draw on, which `finish` puts into their place."""
        ax = self._figure.add_axes((0, 0, 1, 1), label=str(len(self._plots)))
        self._plots.append((ax, left, top, width, height))
        self._reach(top + height)
        return ax

    def rule(self, top: float) -> None:
        """Draw a thin line across."""
        self._line([MARGIN, self.width - MARGIN], top, "#b0b0b0", 0.5)
        self._reach(top)

    def finish(self) -> Figure:
        """Give the figure its height, and all that is on it its place."""
        whole = self.bottom + MARGIN
        self._figure.set_size_inches(self.width / POINTS_PER_INCH, whole / POINTS_PER_INCH)
        self._ax.set(xlim=(0, self.width), ylim=(whole, 0), aspect="auto")
        self._ax.set_axis_off()
        for ax, left, top, width, height in self._plots:
            bottom = 1 - (top + height) / whole
            ax.set_position((left / self.width, bottom, width / self.width, height / whole))
        return self._figure

    def _line(self, x: list[float], y: float, colour: str, width: float) -> None:
        self._ax.plot(x, [y, y], color=colour, linewidth=width, solid_capstyle="butt", clip_on=False)

    def _reach(self, bottom: float) -> float:
        self.bottom = max(self.bottom, bottom)
        return bottom


class Word(NamedTuple):
    """A word in a line: its left edge and width in points, its text and its mark ("" for none)."""

    left: float
    width: float
    text: str
    mark: str


def wrap(parts: Parts, width: float) -> list[list[Word]]:
    """Break a text into lines; a line break in it begins a new one, and a word wider than a line stands alone.

    Args:
        parts: (text, mark) in order; a mark is a name of `MARKS`.
        width: of a line, points.
    """
    fragments = [
        (piece, mark, measure(piece, MARKS[mark][1]))
        for text, mark in parts
        for piece in re.findall(r"\n|[^\S\n]+|\S+", text)
    ]
    lines: list[list[Word]] = [[]]
    left, is_glued = 0.0, False
    for number, (piece, mark, length) in enumerate(fragments):
        is_word = bool(piece.strip())
        # What no space parts stays together, though its marks differ.
        whole = sum(own for _, _, own in takewhile(lambda one: one[0].strip(), fragments[number:]))
        if piece == "\n" or (is_word and not is_glued and left and left + whole > width):
            lines.append([])
            left = 0.0
        if is_word:
            lines[-1].append(Word(left, length, piece, mark))
        if is_word or left:
            left += length
        is_glued = is_word
    return lines


@lru_cache(maxsize=20_000)
def measure(word: str, is_bold: bool = False) -> float:
    """Measure the width of a word in points, with a bar behind it: spaces have no outline, and bars no kerning."""
    font = FontProperties(weight="bold" if is_bold else "normal")

    def outline(text: str) -> float:
        return float(TextPath((0, 0), text, size=TEXT_SIZE, prop=font, usetex=False).get_extents().x1)

    return outline(f"{word}|") - outline("|") if word != "\n" else 0.0
