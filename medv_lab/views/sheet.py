"""A page that grows downwards: wrapped texts with marked words, pictures and plots, legible in print.

Everything is laid out in points from the top left corner; the height is known in the end, and `finish` makes the
figure.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from medv_lab.views.style import ACCENT, PALETTE, SMALLEST_FONT

POINTS_PER_INCH = 72
LINE_HEIGHT = 1.32  # of the font size
TEXT_SIZE = 6.5
Parts = Sequence[tuple[str, str]]  # (text, mark) in order

# Mark: colour, bold, line under the words. Each differs from the others without its colour.
MARKS = {
    "right": (PALETTE["blue"], True, False),
    "wrong": (ACCENT, False, True),
    "repeated": (ACCENT, True, False),
    "label": ("black", True, False),
    "quiet": ("#595959", False, False),
}
BOLD = tuple(mark for mark, (_, is_bold, _) in MARKS.items() if is_bold)


class Sheet:
    """A page of fixed width.

    Attributes:
        width: points.
        bottom: lowest point used so far, points from the top.
    """

    def __init__(self, inches: float, margin: float = 3) -> None:
        self.width = inches * POINTS_PER_INCH
        self.margin = margin
        self.bottom = margin
        self._inks: list[Callable[[Axes], None]] = []
        self._plots: list[tuple[tuple[float, float, float, float], Callable[[Axes], None]]] = []

    def write(
        self, parts: Parts | str, left: float, top: float, width: float, size: float = TEXT_SIZE
    ) -> float:
        """Write wrapped text; returns its bottom.

        Raises:
            ValueError: for letters smaller than print allows.
        """
        if size < SMALLEST_FONT:
            raise ValueError(f"size is {size} points; the smallest that print allows is {SMALLEST_FONT}")
        parts = [(parts, "")] if isinstance(parts, str) else list(parts)
        step = size * LINE_HEIGHT
        lines = wrap(parts, width, size)
        for number, line in enumerate(lines):
            for word in line:
                colour, is_bold, is_underlined = MARKS.get(word.mark, ("black", False, False))
                x, y = left + word.left, top + (number + 0.5) * step
                self._inks.append(
                    lambda ax, x=x, y=y, text=word.text, colour=colour, is_bold=is_bold: ax.text(
                        x,
                        y,
                        text,
                        color=colour,
                        weight="bold" if is_bold else "normal",
                        fontsize=size,
                        va="center_baseline",
                        parse_math=False,
                    )
                )
                if is_underlined:
                    end = x + word.width
                    self._line([x, end], [y + 0.46 * size] * 2, colour, 0.6)
        return self._reach(top + len(lines) * step)

    def show(self, picture: np.ndarray, left: float, top: float, size: float) -> float:
        """Put a picture into a square of `size` points, its shape kept; returns the square's bottom."""
        height, width = picture.shape[:2]
        scale = size / max(height, width)
        x, y = left + (size - width * scale) / 2, top + (size - height * scale) / 2
        extent = (x, x + width * scale, y + height * scale, y)
        cmap = "gray" if picture.ndim == 2 else None
        self._inks.append(lambda ax: ax.imshow(picture, extent=extent, cmap=cmap, interpolation="nearest"))
        return self._reach(top + size)

    def plot(
        self, draw: Callable[[Axes], None], left: float, top: float, width: float, height: float
    ) -> float:
        """Keep room for axes, drawn by `draw` when the sheet is finished; returns its bottom."""
        self._plots.append(((left, top, width, height), draw))
        return self._reach(top + height)

    def rule(self, top: float, left: float | None = None, right: float | None = None) -> None:
        """Draw a thin line across."""
        ends = [self.margin if left is None else left, self.width - self.margin if right is None else right]
        self._line(ends, [top, top], "#b0b0b0", 0.5)
        self._reach(top)

    def finish(self) -> Figure:
        """Make the figure."""
        height = self.bottom + self.margin
        figure = plt.figure(figsize=(self.width / POINTS_PER_INCH, height / POINTS_PER_INCH))
        ax = figure.add_axes((0, 0, 1, 1))
        for ink in self._inks:
            ink(ax)
        ax.set_xlim(0, self.width)
        ax.set_ylim(height, 0)
        ax.set_aspect("auto")
        ax.set_axis_off()
        for (left, top, width, tall), draw in self._plots:
            box = (left / self.width, 1 - (top + tall) / height, width / self.width, tall / height)
            draw(figure.add_axes(box))
        return figure

    def _line(self, x: list[float], y: list[float], colour: str, width: float) -> None:
        self._inks.append(
            lambda ax: ax.plot(x, y, color=colour, linewidth=width, solid_capstyle="butt", clip_on=False)
        )

    def _reach(self, bottom: float) -> float:
        self.bottom = max(self.bottom, bottom)
        return bottom


class Word(NamedTuple):
    """A word in a line: its left edge and width in points, its text and its mark ("" for none)."""

    left: float
    width: float
    text: str
    mark: str


def wrap(parts: Parts, width: float, size: float) -> list[list[Word]]:
    """Break a text into lines; a line break in it begins a new one, and a word wider than a line stands alone.

    Args:
        parts: (text, mark) in order; a mark is a name of `MARKS`, "" for none.
        width: of a line, points.
        size: of the letters, points.
    """
    fragments = [
        (piece, mark, measure(piece, size, mark in BOLD))
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
def measure(word: str, size: float, is_bold: bool = False) -> float:
    """Measure the width of a word in points, with a bar behind it: spaces have no outline, and bars no kerning."""
    font = FontProperties(weight="bold" if is_bold else "normal")

    def outline(text: str) -> float:
        return float(TextPath((0, 0), text, size=size, prop=font, usetex=False).get_extents().x1)

    return outline(f"{word}|") - outline("|") if word != "\n" else 0.0
