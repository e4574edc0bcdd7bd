"""Training examples of the embedded model: dialogues about scenes as token ids and labels, and their batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from medv_lab.model.prompts import IGNORED_LABEL, IMAGE_TOKEN, encode_dialogue, special_ids
from medv_lab.phantoms.questions import Question
from medv_lab.phantoms.reports import (
    CAPTION_REQUESTS,
    DESCRIPTION_REQUESTS,
    make_caption,
    make_description,
    make_dialogue,
)
from medv_lab.phantoms.scenes import Scene

FILL, LONG_FILL, LONG_FILL_SHARE = 12, 96, 1 / 8  # tokens, tokens, share of examples

Turns = list[tuple[str, str]]  # (question, answer)


@dataclass(frozen=True)
class Example:
    """A dialogue about one picture; `scene` indexes the pictures, or is None for text alone."""

    turns: Turns
    scene: int | None


def caption_examples(scenes: Sequence[Scene], seed: int) -> list[Example]:
    """One caption a scene."""
    rng = np.random.default_rng([seed, 1])
    return [
        Example([(str(rng.choice(CAPTION_REQUESTS)), make_caption(scene, rng))], i)
        for i, scene in enumerate(scenes)
    ]


def description_examples(scenes: Sequence[Scene], seed: int) -> list[Example]:
    """One description a scene."""
    rng = np.random.default_rng([seed, 2])
    return [
        Example([(str(rng.choice(DESCRIPTION_REQUESTS)), make_description(scene, rng))], i)
        for i, scene in enumerate(scenes)
    ]


def dialogue_examples(scenes: Sequence[Scene], seed: int) -> list[Example]:
    """One dialogue of two to four turns a scene."""
    rng = np.random.default_rng([seed, 3])
    return [Example(make_dialogue(scene, rng, int(rng.integers(2, 5))), i) for i, scene in enumerate(scenes)]


def question_examples(questions: Sequence[Question]) -> list[Example]:
    """One single-turn dialogue a question."""
    return [Example([(question.text, question.answer)], question.scene) for question in questions]


def without_images(examples: Sequence[Example]) -> list[Example]:
    """The same dialogues with no picture: what a question-only model is trained on."""
    return [Example(example.turns, None) for example in examples]


class ExampleDataset(Dataset):
    """Encoded examples; sorted into groups of like length by the trainer through the column `length`.

    End-of-text tokens follow the last answer, a random number of them, so that the number of masks does not tell
    the length of the answer: mostly few, which costs little, and in every eighth example up to a whole canvas.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        long_fill_share: float = LONG_FILL_SHARE,
    ) -> None:
        """Encode all examples once; `seed` draws the number of end-of-text tokens."""
        rng = np.random.default_rng([seed, 4])
        self.items = []
        for example in examples:
            ids, labels = encode_example(example, tokenizer)
            most = LONG_FILL if rng.random() < long_fill_share else FILL
            extra = [tokenizer.eos_token_id] * int(rng.integers(0, most + 1))
            self.items.append(
                {
                    "input_ids": ids + extra,
                    "labels": labels + extra,
                    "scene": example.scene,
                    "length": len(ids) + len(extra),
                }
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[index]


def encode_example(example: Example, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids and labels; only answers and the end-of-turn token behind each are labelled.

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
    for place, token in enumerate(ids):
        is_answer = is_answer or ids[place - len(header) : place] == header
        labels.append(token if is_answer else IGNORED_LABEL)
        is_answer = is_answer and token != end
    if labels.count(end) != len(example.turns):
        raise ValueError(
            f"{labels.count(end)} of {len(example.turns)} answers were found in a dialogue; the tokenizer must give "
            "the assistant's header the same ids whatever text follows it"
        )
    return ids, labels


class Collator:
    """Pads a batch on the right with end-of-text, which is neither attended to nor learned."""

    def __init__(self, pad_token_id: int, features: torch.Tensor | None) -> None:
        """Keep the pad token and the frozen tower's features of all pictures, (N, patches, width), or None."""
        self.pad_token_id = pad_token_id
        self.features = features

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Items of an `ExampleDataset` to input_ids, labels, attention_mask (B, S) and vision_features."""
        longest = max(item["length"] for item in items)
        shape = (len(items), longest)
        input_ids = torch.full(shape, self.pad_token_id)
        labels = torch.full(shape, IGNORED_LABEL)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        for row, item in enumerate(items):
            n = item["length"]
            input_ids[row, :n] = torch.tensor(item["input_ids"])
            labels[row, :n] = torch.tensor(item["labels"])
            attention_mask[row, :n] = 1
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        scenes = [item["scene"] for item in items if item["scene"] is not None]
        if scenes:
            batch["vision_features"] = self.features[scenes].float()
        return batch
