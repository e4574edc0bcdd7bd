"""Text broken into lines of a given width, in points, with parts that are marked; nothing is drawn here."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath


class Word(NamedTuple):
    """A word in a line: its left edge and width in points, its text and its mark ("" for none)."""

    left: float
    width: float
    text: str
    mark: str


def wrap(
    parts: Sequence[tuple[str, str]], width: float, size: float, bold: Sequence[str] | None = None
) -> list[list[Word]]:
    """Break a text into lines; a line break in it begins a new one, and a word wider than a line stands alone.

    Args:
        parts: (text, mark) pieces in order; a mark is any name, "" for none.
        width: of a line, points.
        size: of the letters, points.
        bold: marks whose words are set in bold type; every mark by default.
    """
    lines: list[list[Word]] = [[]]
    left = 0.0
    for text, mark in parts:
        is_bold = bool(mark) if bold is None else mark in bold
        for word in re.findall(r"\n|[^\S\n]+|\S+", text):
            length = measure(word, size, is_bold)
            if word == "\n" or (word.strip() and left and left + length > width):
                lines.append([])
                left = 0.0
            if word.strip():
                lines[-1].append(Word(left, length, word, mark))
            if word.strip() or left:
                left += length
    return lines


@lru_cache(maxsize=20_000)
def measure(word: str, size: float, is_bold: bool = False) -> float:
    """Width of a word in points, measured with a bar behind it: spaces have no outline, and bars no kerning."""
    font = FontProperties(weight="bold" if is_bold else "normal")

    def outline(text: str) -> float:
        return float(TextPath((0, 0), text, size=size, prop=font, usetex=False).get_extents().x1)

    return outline(f"{word}|") - outline("|") if word != "\n" else 0.0
