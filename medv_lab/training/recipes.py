"""The recipes of the stages: the published ones (Table 6 of the paper) and those of the embedded model.

The paper's symbols: g vision tower, h projector, p language model (the backbone; Table 6 calls it the language
tower), t noise level, L length of a dialogue. In stage 1 (alignment) h learns; in stage 2 (MD-SFT, visual
instruction tuning) and stage 3 (SD-SFT, one run per data set) h and p learn; g is frozen throughout.

A recipe says what is computed, on whatever machine; how (accumulation, checkpoints) is the `Engine`'s part. Vary one
with `dataclasses.replace`, print it to see it as a table. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import NoneType
from typing import TYPE_CHECKING, get_args, get_type_hints

from medv_lab.runtime import PRECISIONS

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("vision_tower", "projector", "language_model")  # as the model's `parts()` names them
CHOICES = {"precision": PRECISIONS, "levels": ("uniform", "stratified")}


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters in place of full training of the backbone (Hu et al., arXiv 2106.09685).

    Attributes:
        rank: of the update matrices.
        alpha: the update is scaled by alpha / rank.
        layers: the linear layers of every transformer layer that get an adapter.
    """

    rank: int = 16
    alpha: int = 32
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    Attributes:
        name: for logs and tables.
        vision_tower_lr, projector_lr, language_model_lr: peak learning rate of a part; None freezes it.
        muon_lr: peak learning rate of the matrices of transformer layers, which then learn by Muon in whatever part
            learns, all else by AdamW; None is AdamW for all. Adapters are AdamW's in any case.
        batch_size: dialogues per optimiser step, over all processes and accumulated batches.
        epochs, steps: how long; one of them is None.
        samples: dialogues of the published training set, or None.
        max_length: tokens of a dialogue, image features included; longer ones are cut.
        schedule: learning rate over the steps, as transformers names it; down to 0.
        warmup: share of the steps in which the rate rises linearly to its peak.
        betas, eps, weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm.
        precision: "bf16" (autocast over fp32 weights), "fp32", or "auto": bf16 where the device computes it natively
            (`runtime.has_bfloat16`), else fp32.
        levels: how t is drawn. "uniform": each row on its own, as published. "stratified": one from each of B equal
            parts of [t_min, 1], which varies less from batch to batch.
        t_min: the smallest noise level of stratified draws, in [0, 1); the reference's uniform ones have none.
        group_by_length: batches hold dialogues of like length.
        lora: adapters in place of full training of the backbone, or None.

    Raises:
        ValueError: for a value outside of what is allowed, or if nothing would learn.
    """

    name: str
    vision_tower_lr: float | None = None
    projector_lr: float | None = None
    language_model_lr: float | None = None
    muon_lr: float | None = None
    batch_size: int = 8
    epochs: int | None = None
    steps: int | None = None
    samples: int | None = None
    max_length: int = 8192
    schedule: str = "cosine"
    warmup: float = 0.03
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "auto"
    levels: str = "uniform"
    t_min: float = 0.0
    group_by_length: bool = True
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise ValueError(
                f"{self.name}: every part is frozen; give one of {', '.join(PARTS)} a learning rate"
            )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"{self.name}: epochs is {self.epochs} and steps is {self.steps}; give one of them"
            )
        for field, allowed in CHOICES.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is {getattr(self, field)!r}; allowed are {', '.join(allowed)}")
        if not 0 <= self.t_min < 1 or (self.t_min and self.levels == "uniform"):
            raise ValueError(
                f"{self.name}: t_min is {self.t_min} with {self.levels} levels; give 0 to below 1, and 0 with "
                "uniform ones"
            )
        if self.lora is not None and self.language_model_lr is None:
            raise ValueError(
                f"{self.name}: LoRA adapts the backbone, which is frozen; give it a learning rate"
            )

    @property
    def learning_rates(self) -> dict[str, float]:
        """Map every part that learns to its peak learning rate."""
        rates = {part: getattr(self, f"{part}_lr") for part in PARTS}
        return {part: rate for part, rate in rates.items() if rate is not None}

    @property
    def parts(self) -> tuple[str, ...]:
        """Name the parts that learn."""
        return tuple(self.learning_rates)

    def count_steps(self, samples: int | None = None) -> int:
        """Count optimiser steps for a number of dialogues (by default, of the published training set).

        Raises:
            ValueError: if the recipe counts epochs and neither number is known.
        """
        if self.steps is not None:
            return self.steps
        samples = self.samples if samples is None else samples
        if samples is None:
            raise ValueError(f"{self.name} counts epochs; give the number of dialogues")
        return self.epochs * -(-samples // self.batch_size)

    def __str__(self) -> str:
        return tabulate_recipes({self.name: self}).to_string()


@dataclass(frozen=True)
class Engine:
    """How a recipe is carried out; apart from rounding, none of it changes what is learned.

    Attributes:
        accumulation: batches whose gradients make one optimiser step.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        compile: run the backbone's layers through `torch.compile`: faster after a minute; needs a C++ compiler.
        save_steps: optimiser steps between checkpoints, of which the newest two are kept; 0 writes none.
        log_steps: optimiser steps between reports of the loss.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
    """

    accumulation: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    save_steps: int = 0
    log_steps: int = 100
    device: str = "auto"


@dataclass(frozen=True)
class EvalConfig:
    """How a cell of the ablations is scored.

    Attributes:
        rounds: rounds of balanced test questions; one asks about 130.
        captions: test pictures that are captioned.
        descriptions: test pictures that are described in detail.
    """

    rounds: int = 4
    captions: int = 100
    descriptions: int = 50


def vary(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Change a recipe by settings written as text, "steps=100"; "none" clears a setting, "lora=16" gives a rank.

    Raises:
        ValueError: for a setting that is not there, or a value of another kind.
    """
    kinds = {name: [*get_args(hint), hint] for name, hint in get_type_hints(Recipe).items()}
    readers = {
        name: next((k for k in (int, float, bool, str) if k in of), None) for name, of in kinds.items()
    }
    del readers["name"], readers["betas"]
    readers |= {"group_by_length": lambda text: {"true": True, "false": False}[text]}
    readers |= {"lora": lambda text: LoRA(rank=int(text))}
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in readers:
            raise ValueError(
                f"{change!r} changes no setting; give setting=value, settings are {', '.join(readers)}"
            )
        try:
            is_cleared = text == "none" and NoneType in kinds[name]
            values[name] = None if is_cleared else readers[name](text)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{change!r}: {text!r} is no value of {name}, which is now {getattr(recipe, name)!r}"
            ) from error
    return replace(recipe, **values)


def tabulate_recipes(recipes: Mapping[str, Recipe]) -> pd.DataFrame:
    """Tabulate settings in rows and recipes in columns, as in Table 6; a frozen part has the learning rate "frozen"."""
    import pandas as pd

    names = [field.name for field in fields(Recipe) if field.name != "name"]
    frozen = [f"{part}_lr" for part in PARTS]

    def cell(recipe: Recipe, name: str) -> str:
        value = getattr(recipe, name)
        if value is None:
            return "frozen" if name in frozen else "-"
        return f"{value:g}" if isinstance(value, float) else str(value)

    columns = {key: [cell(recipe, name) for name in names] for key, recipe in recipes.items()}
    return pd.DataFrame(columns, index=pd.Index(names, name="setting"))


def _fine_tuning(name: str, epochs: int, samples: int) -> Recipe:
    return Recipe(name, projector_lr=2e-6, language_model_lr=2e-6, epochs=epochs, samples=samples)


PUBLISHED = {
    "alignment": Recipe("alignment", projector_lr=1e-3, batch_size=32, epochs=2, samples=600_000),
    "instruct": Recipe(
        "instruction tuning", projector_lr=1e-5, language_model_lr=1e-5, epochs=4, samples=60_000
    ),
    "vqa-rad": _fine_tuning("fine-tuning on VQA-RAD", 2, 1797),
    "slake": _fine_tuning("fine-tuning on SLAKE", 10, 4919),
    "pathvqa": _fine_tuning("fine-tuning on PathVQA", 7, 19_755),
}
"""Table 6 of the paper; what it leaves open (betas, clipping) is the defaults of AdamW and clipping at 1."""


def _embedded(name: str, steps: int, *parts: str, rate: float = 1e-3, **settings) -> Recipe:
    return Recipe(
        name,
        **{f"{part}_lr": rate for part in parts},
        steps=steps,
        max_length=1024,
        betas=(0.9, 0.98),
        levels="stratified",
        t_min=0.3,
        **{"batch_size": 64} | settings,
    )


EMBEDDED = {
    "text": _embedded("text", 300, "language_model", muon_lr=6e-3),
    "alignment": _embedded("alignment", 100, "projector"),
    "questions": _embedded("questions first", 500, "projector", "language_model", muon_lr=6e-3),
    "instruct": _embedded(
        "instruction tuning", 4000, "projector", "language_model", muon_lr=6e-3, batch_size=128
    ),
    "polish": _embedded("polish", 1000, "projector", "language_model", rate=3e-4, muon_lr=3e-3),
    "vqa": _embedded("fine-tuning", 300, "projector", "language_model", muon_lr=2e-3),
}
"""The same stages at the size of the embedded model, after a text-only stage that makes its backbone, and with
single questions before all others and a last stage with more reports of two findings."""

RECIPES = {"full": PUBLISHED, "embedded": {name: EMBEDDED[name] for name in ("alignment", "instruct", "vqa")}}
"""What a stage from a checkpoint is trained by."""


@dataclass(frozen=True)
class Budget:
    """How much of everything an embedded model is built from.

    Attributes:
        scenes: phantoms to train on.
        question_rounds: balanced rounds of questions about them.
        vision_steps: optimiser steps of the vision tower.
        text, alignment, questions, instruct, polish: recipes of the stages.
        score_rounds: balanced rounds of questions that the checkpoint is scored on; one asks about 130.
        seed: of data, order and noise.
    """

    scenes: int = 20_000
    question_rounds: int = 500
    vision_steps: int = 2400
    text: Recipe = EMBEDDED["text"]
    alignment: Recipe = EMBEDDED["alignment"]
    questions: Recipe = EMBEDDED["questions"]
    instruct: Recipe = EMBEDDED["instruct"]
    polish: Recipe = EMBEDDED["polish"]
    score_rounds: int = 6
    seed: int = 0


TEN_MINUTES = Budget(
    scenes=5000,
    question_rounds=125,
    vision_steps=700,
    text=replace(EMBEDDED["text"], steps=60),
    alignment=replace(EMBEDDED["alignment"], steps=40),
    questions=replace(EMBEDDED["questions"], steps=300),
    instruct=replace(EMBEDDED["instruct"], steps=450, batch_size=64),
    polish=replace(EMBEDDED["polish"], steps=50),
    score_rounds=2,
)
"""The whole build in about ten minutes on two CPU cores with bfloat16 units: it answers, and describes with faults."""


def find_recipe(preset: str, name: str) -> Recipe:
    """Return the recipe of a stage from a checkpoint, by preset ("full" or "embedded") and name.

    Raises:
        ValueError: for a preset or a name that is not there.
    """
    if preset not in RECIPES:
        raise ValueError(f"preset is {preset!r}; allowed are {', '.join(RECIPES)}")
    if name not in RECIPES[preset]:
        raise ValueError(f"there is no stage {name!r} in {preset}; there are {', '.join(RECIPES[preset])}")
    return RECIPES[preset][name]
