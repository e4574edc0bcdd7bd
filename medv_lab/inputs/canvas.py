"""Canvases: answers that are partly given, as texts with gaps or as ids; the model fills in what is masked.

    "There is ____ in the left upper zone."

A gap is written as two underscores or more, as the glyph that traces show for a mask, or as the mask token itself. Each
underscore, glyph or token is one mask. Spaces before a gap are left to the model, since tokens begin with their space.
"""

import re
from collections.abc import Sequence
from typing import Any

from medv_lab.diffusion.trace import MASK_GLYPH
from medv_lab.inputs.prompts import SPECIAL_TOKENS, special_ids

_MASK_TOKEN = re.escape(SPECIAL_TOKENS["mask"])
_GAP = re.compile(rf" *((?:_{{2,}}|{MASK_GLYPH}|{_MASK_TOKEN})+)")
_MASK = re.compile(rf"_|{MASK_GLYPH}|{_MASK_TOKEN}")

Canvas = str | Sequence[int | None]


def read_canvas(canvas: Canvas, tokenizer: Any) -> list[int]:
    """Return the ids of a canvas, the mask's id at its gaps.

    Args:
        canvas: a text with gaps, or ids with None or the mask's id where a token is wanted.
        tokenizer: a LLaDA tokenizer.

    Raises:
        ValueError: for an empty canvas, or ids that the tokenizer does not have.
    """
    mask = special_ids(tokenizer).mask
    if isinstance(canvas, str):
        ids: list[int] = []
        for number, part in enumerate(_GAP.split(canvas)):  # text and gap in turn
            is_gap = number % 2
            ids += [mask] * len(_MASK.findall(part)) if is_gap else _encode(tokenizer, part)
    else:
        given = canvas.tolist() if hasattr(canvas, "tolist") else list(canvas)
        ids = [mask if token is None else token for token in given]
        wrong = [token for token in ids if type(token) is not int or not 0 <= token < len(tokenizer)]
        if wrong:
            raise ValueError(
                f"a canvas holds {wrong[0]!r}; give ids from 0 to {len(tokenizer) - 1}, None where a token is wanted"
            )
    if not ids:
        raise ValueError("the canvas is empty; give a text with gaps, 'There is ____ in the lung.', or ids")
    return ids


def fit_canvases(
    canvases: Sequence[Sequence[int] | None], length: int, mask_token_id: int
) -> list[list[int]]:
    """Return canvases of L ids each, filled up with masks behind what is given; None becomes masks alone.

    Raises:
        ValueError: for a canvas that is longer.
    """
    longest = max(len(ids or ()) for ids in canvases)
    if longest > length:
        raise ValueError(
            f"a canvas has {longest} tokens, but gen_length is {length}; shorten it, or give a gen_length of "
            f"{longest} or more"
        )
    return [[*(ids or ()), *[mask_token_id] * (length - len(ids or ()))] for ids in canvases]


def _encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False) if text else []
