"""Phantoms and the general-domain world as training data of the ablations: examples by name, pictures, their features.

A collection of examples is named by what it holds (`COLLECTIONS`). Features are those of a frozen vision tower; they
are computed once and kept in a cache folder, under a name that the tower and the pictures decide.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.phantoms import general
from medv_lab.phantoms.questions import PROBES, balanced_questions
from medv_lab.phantoms.scenes import DOMAINS, Scene, make_scenes
from medv_lab.training.embedded import LATE, frozen_features
from medv_lab.training.examples import (
    Collator,
    Example,
    caption_examples,
    description_examples,
    question_examples,
    without_images,
)
from medv_lab.training.pipelines import DATA_SETS
from medv_lab.training.vision import render_all, to_pixels


@dataclass(frozen=True)
class Amounts:
    """How much data there is.

    Attributes:
        scenes, general_scenes: pictures of each world.
        rounds, general_rounds: balanced rounds of questions about them.
        captions: share of the pictures of a world that stage 2 has a caption of; half as many have a description.
    """

    scenes: int = 8000
    general_scenes: int = 4000
    rounds: int = 150
    general_rounds: int = 120
    captions: float = 0.5


class Worlds:
    """Examples and features for a vision tower."""

    def __init__(self, amounts: Amounts, cache: Path) -> None:
        """`cache` is the folder that features are kept in."""
        self.amounts, self.cache = amounts, cache

    @cached_property
    def scenes(self) -> list[Scene]:
        """The phantoms."""
        return make_scenes("train", self.amounts.scenes)

    @cached_property
    def general_scenes(self) -> list[general.GeneralScene]:
        """The pictures that are not medical."""
        return general.make_general_scenes("train", self.amounts.general_scenes)

    def images(self, collection: str) -> torch.Tensor:
        """The pictures of a collection, uint8 (N, 3, side, side)."""
        if not collection.startswith("general"):
            return render_all(self.scenes)
        pictures = np.stack([general.paint(scene) for scene in self.general_scenes])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)

    def features(self, collection: str, model: MedVLanguageModel, tower: str) -> torch.Tensor:
        """What the vision tower makes of a collection's pictures, (N, patches, width), fp16.

        Args:
            collection: its name.
            model: holds the tower.
            tower: digest of the tower.
        """
        world = "general" if collection.startswith("general") else "phantoms"
        count = self.amounts.general_scenes if world == "general" else self.amounts.scenes
        path = self.cache / f"features-{world}-{count}-{tower[:12]}.safetensors"
        if not path.is_file():
            found = frozen_features(model, self.images(collection))
            save_whole({"features": found}, path)
        return load_file(path)["features"]

    def examples(self, collection: str, seed: int) -> list[Example]:
        """The examples of a collection.

        Raises:
            ValueError: for an unknown name.
        """
        if collection not in COLLECTIONS:
            raise ValueError(f"there is no collection {collection!r}; there are {', '.join(COLLECTIONS)}")
        return COLLECTIONS[collection](self, seed)

    def _questions(self, seed: int, domains: Sequence[str] = DOMAINS) -> list[Example]:
        questions = balanced_questions(self.scenes, self.amounts.rounds, seed)
        return question_examples([q for q in questions if self.scenes[q.scene].domain in domains])

    def _instruct(self, seed: int) -> list[Example]:
        few = self.scenes[: round(self.amounts.captions * len(self.scenes))]
        captions = caption_examples(few, seed + 1)
        descriptions = description_examples(few[: len(few) // 2], seed + 1)
        more = [probe for probe in PROBES if probe.family in LATE and probe.is_closed]
        late = question_examples(balanced_questions(self.scenes, self.amounts.rounds, seed + 1, more))
        return [*self._questions(seed), *late, *captions, *descriptions]

    def _general_captions(self, seed: int) -> list[Example]:
        rng = np.random.default_rng([seed, 6])
        asked = rng.choice(general.REQUESTS, len(self.general_scenes))
        return [
            Example([(str(request), general.caption(scene))], number)
            for number, (request, scene) in enumerate(zip(asked, self.general_scenes, strict=True))
        ]

    def _general_instruct(self, seed: int) -> list[Example]:
        rng = np.random.default_rng([seed, 7])
        rounds, probes = self.amounts.general_rounds, general.PROBES
        captions = self._general_captions(seed + 1)
        some = round(self.amounts.captions * len(captions))
        dialogues = [
            Example(general.dialogue(scene, rng, 2), number)
            for number, scene in enumerate(self.general_scenes[:some])
        ]
        questions = question_examples(balanced_questions(self.general_scenes, rounds, seed, probes))
        return [*questions, *captions[:some], *dialogues]

    def _text(self, seed: int) -> list[Example]:
        return without_images([*caption_examples(self.scenes, seed), *self._general_captions(seed)])


COLLECTIONS: dict[str, Callable[[Worlds, int], list[Example]]] = {
    "text": Worlds._text,
    "captions": lambda worlds, seed: caption_examples(worlds.scenes, seed),
    "questions": lambda worlds, seed: worlds._questions(seed + 3),
    "instructions": Worlds._instruct,
    **{
        f"questions, {name}": lambda worlds, seed, domains=domains: worlds._questions(seed + 2, domains)
        for name, domains in DATA_SETS.items()
    },
    "general captions": Worlds._general_captions,
    "general instructions": Worlds._general_instruct,
}
"""text: both worlds' captions, without pictures (no questions: blind answers to balanced questions teach guessing).
captions: one a phantom (stage 1). questions: single ones about phantoms; instructions: others, with more of those
that are learned late, captions and descriptions (stage 2). questions, ...: about one data set (stage 3). general ...:
the same of the general-domain world, with dialogues."""


MINIATURE = Amounts(scenes=60, general_scenes=30, rounds=1, general_rounds=1)


@cache
def data_digest(collection: str) -> str:
    """Digest of a miniature of a collection, with its pictures: another one if the code that makes them changes."""
    worlds = Worlds(MINIATURE, Path())
    examples = json.dumps([[e.turns, e.scene] for e in worlds.examples(collection, 0)], default=int)
    pictures = worlds.images(collection).numpy().tobytes()
    return hashlib.sha256(examples.encode() + pictures).hexdigest()[:16]


class PixelCollator(Collator):
    """Batches with the pictures themselves, for a vision tower that learns."""

    def __init__(self, pad_token_id: int, images: torch.Tensor) -> None:
        """`images` are uint8, (N, 3, side, side)."""
        super().__init__(pad_token_id, images)

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor]:
        """As `Collator`, with pixel_values."""
        batch = super().__call__(items)
        batch["pixel_values"] = to_pixels(batch.pop("vision_features"))
        return batch


def save_whole(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors so that a file of this name is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    save_file(tensors, draft)
    draft.replace(path)
