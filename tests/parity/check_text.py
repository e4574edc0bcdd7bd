"""Prompt texts, token sequences, labels and collation against the recorded ones (`text.json`)."""

import re
import zlib

import pytest

from medv_lab.inputs.prompts import (
    Encoded,
    collate,
    encode_dialogue,
    encode_prompt,
    move_image_first,
    render_prompt,
    special_ids,
)
from tests.parity.golden import case_names, load_json

_PIECES = re.compile(r"\n\n|\n| ?[A-Za-z0-9]+|[^A-Za-z0-9\n]")


class StubTokenizer:
    """The stub tokenizer of the golden folder's README."""

    unk_token_id = None

    def __init__(self, special_tokens: dict[str, int], assistant_id: int):
        self.special_tokens = special_tokens
        self.assistant_id = assistant_id
        self._split = re.compile("(" + "|".join(map(re.escape, special_tokens)) + ")")

    def convert_tokens_to_ids(self, name: str) -> int | None:
        return self.special_tokens.get(name)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert add_special_tokens is False
        ids = []
        for part in self._split.split(text):
            if part in self.special_tokens:
                ids.append(self.special_tokens[part])
            else:
                ids += [self._piece_id(piece) for piece in _PIECES.findall(part)]
        return ids

    def _piece_id(self, piece: str) -> int:
        return (
            self.assistant_id if piece == "assistant" else 1000 + zlib.crc32(piece.encode("utf-8")) % 120000
        )


def _rows(key: str):
    """Parametrise over the rows of one list in text.json; a folder without it shows one named skip."""
    if not case_names("text", key=key):
        skip = pytest.mark.skip(reason="the golden folder has no text.json")
        return pytest.mark.parametrize("row", [pytest.param(None, id="text-absent", marks=skip)])
    rows = load_json("text")[key]
    ids = [f"{row.get('mode', 'default')}-{row['case']}" for row in rows]
    return pytest.mark.parametrize("row", rows, ids=ids)


def _stub() -> StubTokenizer:
    recorded = load_json("text")
    return StubTokenizer(recorded["special_tokens"], recorded["other_ids"]["assistant_role_first_token"])


def _recorded_prompt(mode: str, case: str) -> str:
    prompts = load_json("text")["prompts"]
    return next(row["prompt"] for row in prompts if (row["mode"], row["case"]) == (mode, case))


def _encode_sample(row: dict) -> Encoded:
    turns = [(message["from"], message["value"]) for message in row["conversations"]]
    return encode_dialogue(turns, _stub(), has_image=row["has_image"], chat_mode=row["mode"])


@_rows("prompts")
def test_prompt_text(row):
    assert render_prompt([tuple(turn) for turn in row["messages"]], row["mode"]) == row["prompt"]


@_rows("inference_ids")
def test_inference_ids(row):
    prompt = _recorded_prompt(row.get("mode", "llava_llada"), row["case"])
    assert encode_prompt(prompt, _stub()) == row["ids"]
    assert encode_prompt(prompt, _stub(), drop_after_image=False) == row["ids_if_no_token_were_dropped"]


@_rows("training_samples")
def test_training_sample(row):
    encoded = _encode_sample(row)
    assert encoded.input_ids == row["input_ids"]
    assert encoded.labels == row["labels"]
    if "conversation_ids" in row:
        assert encoded.conversation_ids == row["conversation_ids"]
    if "values_after_image_move" in row:
        values = [message["value"] for message in row["conversations"]]
        moved = [move_image_first(value) for value in values] if row["has_image"] else values
        assert moved == row["values_after_image_move"]


@pytest.mark.parametrize("limit", [None, 20])
def test_collation(limit):
    if not case_names("text", key="collated"):
        pytest.skip("the golden folder has no text.json")
    recorded = load_json("text")["collated"]
    expected = recorded if limit is None else recorded.get(f"max_length_{limit}")
    if expected is None:
        pytest.skip(f"text.json has no collated.max_length_{limit}")
    pad_id = special_ids(_stub()).end_of_text
    batch = collate(_collated_samples(recorded, pad_id), pad_id, limit)
    assert batch["input_ids"] == expected["input_ids"]
    assert batch["labels"] == expected["labels"]
    assert "attention_mask" not in batch
    assert not recorded["has_attention_mask"]


def _collated_samples(recorded: dict, pad_id: int) -> list[Encoded]:
    """The training samples that the collated rows begin with."""

    def is_padded(row: list[int], ids: list[int]) -> bool:
        return row == ids + [pad_id] * (len(row) - len(ids))

    samples = load_json("text")["training_samples"]
    return [
        next(_encode_sample(sample) for sample in samples if is_padded(row, sample["input_ids"]))
        for row in recorded["input_ids"]
    ]


def test_special_ids_are_the_recorded_ones():
    if not case_names("text", key="special_tokens"):
        pytest.skip("the golden folder has no text.json")
    recorded = load_json("text")["other_ids"]
    special = special_ids(_stub())
    assert special.mask == recorded["mask"]
    assert list(special.suppressed) == recorded["suppressed_while_masked"]
