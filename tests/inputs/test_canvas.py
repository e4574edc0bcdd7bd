"""Canvases: texts with gaps and ids, and what is refused."""

import numpy as np
import pytest
import torch

from medv_lab.diffusion.trace import MASK_GLYPH
from medv_lab.inputs.canvas import fit_canvases, read_canvas
from tests.model.tiny import tiny_tokenizer

MASK = tiny_tokenizer().convert_tokens_to_ids("<|mdm_mask|>")


def encode(text: str) -> list[int]:
    return tiny_tokenizer().encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("There is ____ in the left lung.", ["There is", 4, " in the left lung."]),
        ("__ lung", [2, " lung"]),
        ("The liver__", ["The liver", 2]),
        ("Yes,  ___.", ["Yes,", 3, "."]),
        ("a_b is no gap", ["a_b is no gap"]),
        (f"Yes{MASK_GLYPH}{MASK_GLYPH}, there", ["Yes", 2, ", there"]),
        (f"Yes {MASK_GLYPH}, <|mdm_mask|><|mdm_mask|> there", ["Yes", 1, ",", 2, " there"]),
        ("__ ___ lung", [5, " lung"]),
        ("__<|eot_id|>", [2, "<|eot_id|>"]),
    ],
)
def test_each_mark_of_a_gap_is_a_mask_and_the_spaces_before_it_belong_to_it(text, parts):
    wanted = [id for part in parts for id in ([MASK] * part if isinstance(part, int) else encode(part))]
    assert read_canvas(text, tiny_tokenizer()) == wanted


def test_ids_are_taken_as_they_are():
    for given in ([5, None, 7, MASK], np.array([5, MASK, 7, MASK]), torch.tensor([5, MASK, 7, MASK])):
        assert read_canvas(given, tiny_tokenizer()) == [5, MASK, 7, MASK]


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        ("", "empty"),
        ([], "empty"),
        ([5, -200], "holds -200"),
        ([5, 10**6], "holds 1000000"),
        ([5, 2.0], "holds 2.0"),
        ([5, "a"], "holds 'a'"),
        ([True], "holds True"),
    ],
)
def test_what_is_no_canvas_is_refused(canvas, message):
    with pytest.raises(ValueError, match=message):
        read_canvas(canvas, tiny_tokenizer())


def test_masks_follow_what_is_given_and_too_much_is_refused():
    assert fit_canvases([[5, 0], None, [7]], 3, 0) == [[5, 0, 0], [0, 0, 0], [7, 0, 0]]
    with pytest.raises(ValueError, match="has 2 tokens, but gen_length is 1"):
        fit_canvases([[7], [5, 0]], 1, 0)
