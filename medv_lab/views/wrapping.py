"""Text broken into lines of a given width, in points, with parts that are marked; nothing is drawn here."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
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
    fragments = [
        (piece, mark, measure(piece, size, bool(mark) if bold is None else mark in bold))
        for text, mark in parts
        for piece in re.findall(r"\n|[^\S\n]+|\S+", text)
    ]
    lines: list[list[Word]] = [[]]
    left, is_glued = 0.0, False
    for place, (piece, mark, length) in enumerate(fragments):
        is_word = bool(piece.strip())
        # What no space parts stays together, though its marks differ.
        whole = sum(own for _, _, own in takewhile(lambda one: one[0].strip(), fragments[place:]))
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
    """Width of a word in points, measured with a bar behind it: spaces have no outline, and bars no kerning."""
    font = FontProperties(weight="bold" if is_bold else "normal")

    def outline(text: str) -> float:
        return float(TextPath((0, 0), text, size=size, prop=font, usetex=False).get_extents().x1)

    return outline(f"{word}|") - outline("|") if word != "\n" else 0.0
