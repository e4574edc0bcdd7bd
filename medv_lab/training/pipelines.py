"""The arms of the training ablations (Table 4 of the paper and its neighbours), and the data that they are trained on.

An arm is a chain of stages from fresh weights at the size of the embedded model; every chain begins with the text-only
backbone (what LLaDA is to LLaDA-MedV) and the vision tower of the embedded checkpoint. Arms whose chains begin alike
share that part.

Two comparisons. *Equal in steps*: a stage has the same number of steps in every arm that has it, so arms with fewer
stages train less. *Equal in compute*: counted from the text-only backbone on, every arm sees as many dialogues as the
longest (V2, with its general-domain training, which is the same in both); what an arm has too few is added behind its
stage 2, as more of it. All dialogues count alike, whichever parts learn.

Two regimes of data. *Plenty*: no picture is asked about again and again. *Few*: ours and its autoregressive twin with
as many steps on `FEW` pictures, so many epochs; masked diffusion is reported to overtake there (arXiv 2507.15857).
The text-only backbone is the same, since pictures are what is few.

Stage 2 (SFT) goes through single questions first and through questions, captions and descriptions mixed after, as
the embedded model does: in a mixture alone, yes/no answers stay at chance. Its batches are small, which teaches as
much in less time. The backbone learns the language of reports before it sees a picture, once for all arms of a seed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch

from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms import general
from medv_lab.phantoms.questions import PROBES, balanced_questions
from medv_lab.phantoms.reports import make_dialogue
from medv_lab.phantoms.scenes import DOMAINS, Scene, make_scenes
from medv_lab.training.examples import (
    Collator,
    Example,
    PixelCollator,
    encode_examples,
    fact_examples,
    question_examples,
    report_examples,
    retold_examples,
    training_questions,
    without_images,
)
from medv_lab.training.recipes import EMBEDDED, LoRA, Recipe, vary
from medv_lab.training.stages import TensorCache
from medv_lab.training.trainer import Collate
from medv_lab.training.vision import frozen_features, render_all

EQUAL = ("steps", "compute")
OURS = "ours"
MAIN = (OURS, "V1", "V2", "twin")
FEW = 500  # pictures
CAPTION_CANVAS = 48  # tokens; captions are scored at 32, and long rows take time
BASES = {"V2": (OURS, "V1"), "twin-few": ("ours-few",)}
"""Arms that others are compared with, where that is not ours alone."""
CLOSED_PROBES = [probe for probe in PROBES if probe.is_closed]
QUESTIONS, INSTRUCTIONS = "questions", "instructions"
DATA_SETS = {"radiology": DOMAINS[:3], "pathology": DOMAINS[3:]}
"""Data sets of phantoms for stage 3: questions about some domains, as VQA-RAD and SLAKE ask about radiology
and PathVQA about pathology."""


@dataclass(frozen=True)
class ArmStage:
    """One stage of an arm.

    Attributes:
        data: name of its data, see `COLLECTIONS`.
        recipe: what to train and how.
        pictures: train on the first so many phantoms, and on as much less of all else; None for all.
    """

    data: str
    recipe: Recipe
    pictures: int | None = None


@dataclass(frozen=True)
class AblationArm:
    """A chain of stages: one row of the table.

    Attributes:
        name: short.
        label: what it is.
        stages: in order.
        equal: "steps" or "compute".
        is_causal: train the autoregressive twin, by next tokens.
    """

    name: str
    label: str
    stages: tuple[ArmStage, ...]
    equal: str = "steps"
    is_causal: bool = False

    @property
    def steps(self) -> int:
        """Count optimiser steps after the text-only backbone."""
        return sum(stage.recipe.count_steps() for stage in self.stages[1:])

    @property
    def dialogues(self) -> int:
        """Count dialogues, those seen again too, after the text-only backbone."""
        return sum(stage.recipe.count_steps() * stage.recipe.batch_size for stage in self.stages[1:])


BASE = {
    "text": ("text", 1200, 32),
    "alignment": ("alignment", 60, 64),
    "questions": ("questions", 700, 64),
    "instruct": ("instruct", 1100, 32),
    "vqa": ("vqa", 60, 64),
    "general-alignment": ("alignment", 60, 64),
    "general-instruct": ("instruct", 200, 64),
}
"""Stage to the embedded recipe that it is a small copy of, its steps, and dialogues in a batch."""


def make_recipes(changes: Sequence[str] = ()) -> dict[str, Recipe]:
    """Make the recipes of all stages.

    Args:
        changes: "stage.setting=value", e.g. "instruct.steps=900"; settings as in `recipes.vary`.

    Raises:
        ValueError: for another stage, or a setting or value that the recipe does not take.
    """
    own: dict[str, list[str]] = {stage: [] for stage in BASE}
    for change in changes:
        stage, dot, setting = change.partition(".")
        if stage not in own or not dot:
            raise ValueError(
                f"{change!r} names no stage; write stage.setting=value, stages are {', '.join(own)}"
            )
        own[stage].append(setting)
    recipes = {
        stage: replace(EMBEDDED[kind], steps=steps, batch_size=batch)
        for stage, (kind, steps, batch) in BASE.items()
    }
    # Answers of a word are given in the first passes. Trained with nearly all of an answer masked, as it is there,
    # 86 of 100 yes/no questions were answered after 500 steps, 78 with levels from 0.3 on (validation, one seed).
    recipes["questions"] = replace(recipes["questions"], t_min=0.8)
    return {stage: vary(recipe, own[stage]) for stage, recipe in recipes.items()}


def make_arms(changes: Sequence[str] = ()) -> tuple[AblationArm, ...]:
    """Make the grid, the rows of Table 4 first: ours is LLaDA-MedV, the twin stands where LLaVA-Med does.

    Args:
        changes: to the recipes, as in `make_recipes`.
    """
    recipes = make_recipes(changes)
    text, alignment = ArmStage("text", recipes["text"]), ArmStage("captions", recipes["alignment"])
    sft = (ArmStage(QUESTIONS, recipes["questions"]), ArmStage(INSTRUCTIONS, recipes["instruct"]))
    general = (
        ArmStage("general captions", recipes["general-alignment"]),
        ArmStage("general instructions", recipes["general-instruct"]),
    )
    vqa = {name: ArmStage(f"questions, {name}", recipes["vqa"]) for name in DATA_SETS}

    def tuned(**changes) -> tuple[ArmStage, ...]:
        return text, alignment, *(replace(stage, recipe=replace(stage.recipe, **changes)) for stage in sft)

    ours = AblationArm(OURS, "text-only backbone, alignment, SFT", (text, alignment, *sft))
    v1 = AblationArm("V1", "general-domain model, SFT", (text, *general, *sft))
    v2 = AblationArm("V2", "general-domain model, alignment, SFT", (text, *general, alignment, *sft))
    twin = replace(ours, name="twin", label="autoregressive twin: as ours, by next tokens", is_causal=True)
    few = (text, *(replace(stage, pictures=FEW) for stage in (alignment, *sft)))
    unaligned = AblationArm("no-alignment", "as ours, without alignment", (text, *sft))
    return (
        *(ours, v1, v2, twin),
        *(equalise(arm, v2.dialogues) for arm in (ours, v1, v2, twin)),
        replace(ours, name="ours-few", label=f"as ours, on {FEW} pictures", stages=few),
        replace(twin, name="twin-few", label=f"as the twin, on {FEW} pictures", stages=few),
        *(unaligned, equalise(unaligned, v2.dialogues)),
        *(
            AblationArm(f"stage3-{name}", f"ours, then stage 3 on {name}", (*ours.stages, stage))
            for name, stage in vqa.items()
        ),
        *(
            AblationArm(f"no-stage2-{name}", f"alignment, then stage 3 on {name}", (text, alignment, stage))
            for name, stage in vqa.items()
        ),
        AblationArm("lora", "as ours, SFT by LoRA of rank 16", tuned(lora=LoRA())),
        AblationArm("vision", "as ours, vision tower learns in SFT", tuned(vision_tower_lr=1e-4)),
    )


def choose_arms(
    arms: Sequence[AblationArm], names: Sequence[str] = (), equal: str | None = None
) -> list[AblationArm]:
    """Return arms by name; all of them without names. "main" are those of Table 4.

    Args:
        arms: the grid.
        names: which ones.
        equal: only those that are equal in "steps", or in "compute"; both by default.

    Raises:
        ValueError: for a name that no arm has, or another way of being equal.
    """
    wanted = {name for given in names for name in (MAIN if given == "main" else (given,))}
    known = {arm.name for arm in arms}
    if wanted - known:
        raise ValueError(
            f"there is no arm {min(wanted - known)!r}; there are main, {', '.join(sorted(known))}"
        )
    if equal not in (None, *EQUAL):
        raise ValueError(f"equal is {equal!r}; allowed are {', '.join(EQUAL)}")
    return [arm for arm in arms if (not names or arm.name in wanted) and equal in (None, arm.equal)]


def equalise(arm: AblationArm, dialogues: int) -> AblationArm:
    """Return the same arm with `dialogues` in all after the text-only backbone: its last stage is taken up again."""
    last = arm.stages[-1]
    steps = round((dialogues - arm.dialogues) / last.recipe.batch_size)
    more = (replace(last, recipe=replace(last.recipe, steps=steps)),) if steps else ()
    return replace(arm, stages=(*arm.stages, *more), equal="compute")


@dataclass(frozen=True)
class Amounts:
    """How much data there is.

    Attributes:
        scenes, general_scenes: medical phantoms, and pictures of the general domain.
        rounds, general_rounds: balanced rounds of questions about them.
        reports: share of the pictures that stage 2 has brief and detailed reports of; of every picture it has two in
            one sentence.
    """

    scenes: int = 8000
    general_scenes: int = 4000
    rounds: int = 150
    general_rounds: int = 120
    reports: float = 0.5


class PhantomData:
    """Examples, pictures and features of the stages, by the name of a collection (see `COLLECTIONS`).

    Args:
        amounts: how much there is.
        cache: keeps features.
    """

    def __init__(self, amounts: Amounts, cache: TensorCache) -> None:
        self.amounts, self.cache = amounts, cache

    @cached_property
    def scenes(self) -> list[Scene]:
        """Draw the medical phantoms, once."""
        return make_scenes("train", self.amounts.scenes)

    @cached_property
    def general_scenes(self) -> list[general.GeneralScene]:
        """Draw what the pictures of the general domain show, once."""
        return general.make_general_scenes(self.amounts.general_scenes)

    def limit(self, pictures: int) -> "PhantomData":
        """Return the data with its first phantoms only, and as much fewer rounds of questions about them."""
        scenes = self.scenes[:pictures]
        rounds = max(1, round(self.amounts.rounds * len(scenes) / len(self.scenes)))
        few = PhantomData(replace(self.amounts, scenes=len(scenes), rounds=rounds), self.cache)
        few.scenes = scenes
        return few

    def images(self, collection: str) -> torch.Tensor:
        """Draw the pictures of a collection, uint8 (N, 3, side, side)."""
        if collection.startswith("general"):
            return render_all(self.general_scenes, general.paint)
        return render_all(self.scenes)

    def features(self, collection: str, model: MedVLanguageModel, vision_digest: str) -> torch.Tensor:
        """Return the vision tower's features of a collection's pictures, (N, patches, width), fp16.

        Args:
            collection: its name.
            model: has the vision tower.
            vision_digest: of the vision tower.
        """
        kind, count = "phantoms", self.amounts.scenes
        if collection.startswith("general"):
            kind, count = "general", self.amounts.general_scenes
        key = f"features-{kind}-{count}-{vision_digest[:12]}"
        found = self.cache.compute(key, lambda: {"features": frozen_features(model, self.images(collection))})
        return found["features"]

    def load(
        self,
        stage: ArmStage,
        seed: int,
        model: MedVLanguageModel,
        processor: MedVProcessor,
        vision_digest: str,
    ) -> tuple[list[dict], Collate]:
        """Load what a stage is trained on.

        Args:
            stage: of an arm.
            seed: of the examples.
            model, processor: the embedded checkpoint, whose vision tower and tokenizer all arms have.
            vision_digest: of the vision tower.
        """
        tokenizer = processor.tokenizer
        data = self if stage.pictures is None else self.limit(stage.pictures)
        examples = COLLECTIONS[stage.data](data, seed)
        items = encode_examples(examples, tokenizer, seed, sentence_canvas=CAPTION_CANVAS)
        pad = tokenizer.eos_token_id
        if stage.data == "text":
            return items, Collator(pad, None)
        if stage.recipe.vision_tower_lr is not None:
            return items, PixelCollator(pad, self.images(stage.data))
        return items, Collator(pad, self.features(stage.data, model, vision_digest))

    def _questions(self, seed: int, domains: Sequence[str] = DOMAINS) -> list[Example]:
        rounds = self.amounts.rounds
        questions = training_questions(self.scenes, rounds, seed)
        # yes and no are learned last
        questions += balanced_questions(self.scenes, rounds, seed + 9, CLOSED_PROBES)
        return question_examples([q for q in questions if self.scenes[q.scene].domain in domains])

    def _instruct(self, seed: int) -> list[Example]:
        few = self.scenes[: round(self.amounts.reports * len(self.scenes))]
        chosen = [
            ("sentence", 1, self.scenes),
            ("sentence", 2, self.scenes),
            ("brief", 1, few),
            ("detailed", 1, few),
        ]
        reports = [one for length, copy, of in chosen for one in report_examples(length, of, seed + copy)]
        return [*self._questions(seed), *reports]

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
        some = round(self.amounts.reports * len(captions))
        dialogues = [
            Example(make_dialogue(scene, rng, 2, probes), number)
            for number, scene in enumerate(self.general_scenes[:some])
        ]
        questions = question_examples(balanced_questions(self.general_scenes, rounds, seed, probes))
        return [*questions, *captions[:some], *dialogues]

    def _text(self, seed: int) -> list[Example]:
        reports = report_examples("sentence", self.scenes, seed)
        questions = balanced_questions(self.scenes, self.amounts.rounds, seed + 4)
        facts = fact_examples(questions, self.scenes, seed)
        retold = [
            one for length in ("brief", "detailed") for one in retold_examples(length, self.scenes, seed)
        ]
        return [*without_images([*reports, *self._general_captions(seed)]), *facts, *retold]


COLLECTIONS: dict[str, Callable[[PhantomData, int], list[Example]]] = {
    "text": PhantomData._text,
    "captions": lambda data, seed: report_examples("sentence", data.scenes, seed),
    "questions": lambda data, seed: data._questions(seed + 3),
    "instructions": PhantomData._instruct,
    **{
        f"questions, {name}": lambda data, seed, domains=domains: data._questions(seed + 2, domains)
        for name, domains in DATA_SETS.items()
    },
    "general captions": PhantomData._general_captions,
    "general instructions": PhantomData._general_instruct,
}
"""text: captions of both, without pictures, and questions and longer reports about facts that are given as text (no
questions without facts: blind answers to balanced ones teach guessing). captions: one per phantom (stage 1). questions:
single ones about phantoms; instructions: others, with reports of all lengths (stage 2). questions, ...: about one data
set (stage 3). general ...: the same of the general domain, with dialogues."""


MINIATURE = Amounts(scenes=60, general_scenes=30, rounds=1, general_rounds=1)


@cache
def data_digest(collection: str) -> str:
    """Hash a miniature of a collection with its pictures: another digest if the code that makes them changes."""
    data = PhantomData(MINIATURE, TensorCache(Path()))
    turns = [[e.turns, e.scene] for e in COLLECTIONS[collection](data, 0)]
    examples = json.dumps([CAPTION_CANVAS, turns], default=int)
    pictures = data.images(collection).numpy().tobytes()
    return hashlib.sha256(examples.encode() + pictures).hexdigest()[:16]
