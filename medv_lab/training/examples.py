"""Dialogues as token ids, labels and batches: about phantoms, and about pictures in files.

Dialogues about phantoms are labelled and padded in a manner of their own (see `encode_example`, `encode_examples`);
those about files as published (`prompts.encode_dialogue`, `prompts.collate`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from medv_lab.data.instructions import Dialogue
from medv_lab.inputs.prompts import (
    IGNORED_LABEL,
    IMAGE_TOKEN,
    PLAIN_MODE,
    Encoded,
    collate,
    encode_dialogue,
    special_ids,
)
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.questions import PROBES, Draw, balanced_questions
from medv_lab.phantoms.reports import LENGTHS, REQUESTS, make_dialogue, write_report
from medv_lab.phantoms.scenes import Scene
from medv_lab.training.vision import to_pixels

FILL, SENTENCE, CANVAS = 12, 32, 128  # tokens
# These families have few answers, so few of the balanced questions are theirs.
RARE_PROBES = [probe for probe in PROBES if probe.family in ("side", "zone", "extent", "normality")]

Turns = list[tuple[str, str]]  # (question, answer)


@dataclass(frozen=True)
class Example:
    """A dialogue about one picture; `scene` indexes the pictures, or is None for text alone."""

    turns: Turns
    scene: int | None


def report_examples(length: str, scenes: Sequence[Scene], seed: int) -> list[Example]:
    """Ask for one report of a length per scene."""
    rng = np.random.default_rng([seed, 1 + LENGTHS.index(length)])
    return [
        Example([(str(rng.choice(REQUESTS[length])), write_report(scene, rng, length))], i)
        for i, scene in enumerate(scenes)
    ]


def dialogue_examples(scenes: Sequence[Scene], seed: int) -> list[Example]:
    """Write one dialogue of two to four turns per scene."""
    rng = np.random.default_rng([seed, 0])
    return [Example(make_dialogue(scene, rng, int(rng.integers(2, 5))), i) for i, scene in enumerate(scenes)]


def training_questions(scenes: Sequence[Scene], rounds: int, seed: int) -> list[Draw]:
    """Draw balanced questions; families with few answers are asked about three times as often as by the benchmark."""
    often = balanced_questions(scenes, 2 * rounds, seed, RARE_PROBES)
    return [*balanced_questions(scenes, rounds, seed), *often]


def question_examples(questions: Sequence[Draw]) -> list[Example]:
    """Make one dialogue of a single turn per question."""
    return [Example([(question.text, question.answer)], question.scene) for question in questions]


def fact_examples(questions: Sequence[Draw], scenes: Sequence[Scene], seed: int) -> list[Example]:
    """Ask each question about a report in one sentence in place of the picture."""
    rng = np.random.default_rng([seed, 5])
    return [
        Example([(f"{write_report(scenes[q.scene], rng, 'sentence')} {q.text}", q.answer)], None)
        for q in questions
    ]


def retold_examples(length: str, scenes: Sequence[Scene], seed: int) -> list[Example]:
    """Ask for one report of a length per scene, given a report in one sentence in place of the picture."""
    rng = np.random.default_rng([seed, 8])
    return [
        Example([(f"{write_report(scenes[one.scene], rng, 'sentence')} {request}", report)], None)
        for one in report_examples(length, scenes, seed)
        for request, report in one.turns
    ]


def without_images(examples: Sequence[Example]) -> list[Example]:
    """Return the same dialogues without their pictures."""
    return [Example(example.turns, None) for example in examples]


def encode_example(example: Example, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return token ids and labels; only answers and the end-of-turn token behind each are labelled.

    The published labels hold all headers as well. At this size they take a large share of a short answer's
    loss and teach nothing, since a prompt always has its headers.
    """
    image = f"{IMAGE_TOKEN}\n" if example.scene is not None else ""
    turns = []
    for number, (question, answer) in enumerate(example.turns):
        turns += [("user", (image if number == 0 else "") + question), ("assistant", answer)]
    ids, _, _ = encode_dialogue(turns, tokenizer, has_image=bool(image), system_prompt="")
    end = special_ids(tokenizer).end_of_turn
    header = tokenizer.encode("<|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)
    labels, is_answer = [], False
    for index, token in enumerate(ids):
        is_answer = is_answer or ids[index - len(header) : index] == header
        labels.append(token if is_answer else IGNORED_LABEL)
        is_answer = is_answer and token != end
    if labels.count(end) != len(example.turns):
        raise ValueError(
            f"{labels.count(end)} of {len(example.turns)} answers were found in a dialogue; the tokenizer must give "
            "the assistant's header the same ids whatever text follows it"
        )
    return ids, labels


def encode_examples(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    sentence_canvas: int = CANVAS,
) -> list[dict]:
    """Encode dialogues about phantoms: token ids, labels and scene of each.

    End-of-text tokens follow the last answer, a random number of them, so that the number of masks does not tell the
    length of the answer: behind a short answer up to `FILL`, behind a report any number that leaves it within `CANVAS`
    tokens. With few behind reports, the model takes a canvas for nearly full and goes on behind its end.

    Args:
        examples: what to encode.
        tokenizer: of the model.
        seed: draws the number of end-of-text tokens.
        sentence_canvas: in place of `CANVAS` for reports of at most `SENTENCE` tokens.
    """
    rng, items = np.random.default_rng([seed, 4]), []
    encoded: dict[tuple, tuple[list[int], list[int]]] = {}  # the same questions come again and again
    for example in examples:
        key = (*example.turns, example.scene is None)
        if key not in encoded:
            encoded[key] = encode_example(example, tokenizer)
        ids, labels = encoded[key]
        length = len(tokenizer.encode(example.turns[-1][1], add_special_tokens=False)) + 1
        canvas = sentence_canvas if length <= SENTENCE else CANVAS
        most = FILL if length <= FILL else max(0, canvas - length)
        extra = [tokenizer.eos_token_id] * int(rng.integers(0, most + 1))
        items.append({"input_ids": ids + extra, "labels": labels + extra, "scene": example.scene})
    return items


class Collator:
    """Makes batches; pads on the right with end-of-text, which is neither attended to nor learned.

    Args:
        pad_token_id: end-of-text.
        features: of the frozen vision tower for all pictures, (N, patches, width), or None for text alone.
    """

    def __init__(self, pad_token_id: int, features: torch.Tensor | None) -> None:
        self.pad_token_id, self.features = pad_token_id, features

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Turn items of `encode_examples` into input_ids, labels, attention_mask (B, T) and vision_features."""
        ids = [torch.tensor(item["input_ids"]) for item in items]
        labels = [torch.tensor(item["labels"]) for item in items]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        }
        scenes = [item["scene"] for item in items if item["scene"] is not None]
        if scenes:
            batch["vision_features"] = self.features[scenes].float()
        return batch


class PixelCollator(Collator):
    """Makes batches with the pictures themselves, uint8 (N, 3, side, side), for a vision tower that learns."""

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Do as `Collator` does, with pixel_values in place of features."""
        batch = super().__call__(items)
        batch["pixel_values"] = to_pixels(batch.pop("vision_features"))
        return batch


class DialogueDataset(Dataset):
    """Dialogues about files, encoded as published when they are asked for.

    Args:
        dialogues: what to encode.
        processor: has the tokenizer and the prompt's settings.
        is_alignment: a caption follows its picture without a chat frame, as in stage 1.
    """

    def __init__(
        self, dialogues: Sequence[Dialogue], processor: MedVProcessor, is_alignment: bool = False
    ) -> None:
        self.dialogues, self.processor = dialogues, processor
        self.chat_mode = PLAIN_MODE if is_alignment else processor.chat_mode

    def __len__(self) -> int:
        return len(self.dialogues)

    def __getitem__(self, index: int) -> dict:
        """Return token ids, labels, turn of each token, and names of the pictures."""
        dialogue, processor = self.dialogues[index], self.processor
        encoded = encode_dialogue(
            dialogue.turns,
            processor.tokenizer,
            has_image=bool(dialogue.images),
            chat_mode=self.chat_mode,
            system_prompt=processor.system_prompt,
            parse_control_tokens=processor.parse_control_tokens,
        )
        return encoded._asdict() | {"images": dialogue.images}


class PictureCollator:
    """Makes batches of dialogues with their pictures, opened when the batch is made.

    Padding is end of text, which is learned, as published.

    Args:
        processor: prepares the pictures.
        folder: names of pictures are relative to it.
        is_alignment: pictures are squashed to one tile, as in stage 1.
    """

    def __init__(self, processor: MedVProcessor, folder: Path, is_alignment: bool = False) -> None:
        self.processor, self.folder = processor, folder
        self.mode = "square" if is_alignment else processor.image_aspect_ratio

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor | list]:
        """Turn items of a `DialogueDataset` into input_ids, labels (B, T), pixel_values and tile_layouts.

        Raises:
            ImageError: for a picture that cannot be opened.
        """
        samples = [[item[name] for name in Encoded._fields] for item in items]
        rows = collate(samples, self.processor.special.end_of_text)
        batch: dict = {name: torch.tensor(rows[name]) for name in ("input_ids", "labels")}
        pixels, layouts = [], []
        for item in items:
            own = self.processor.prepare_images([self.folder / name for name in item["images"]], self.mode)
            pixels += own[0]
            layouts += own[1]
        return batch | ({"pixel_values": pixels, "tile_layouts": layouts} if pixels else {})
