"""The arms of the training ablations (Table 4 of the paper and its neighbours), at the size of the embedded model.

An arm is a chain of stages from fresh weights; every chain begins with the text-only language tower (the small
world's LLaDA) and the vision tower of the embedded checkpoint. Arms whose chains begin alike share that part.

Two comparisons. *Equal in steps*: a stage has the same number of steps in every arm that has it, so arms with fewer
stages train less. *Equal in compute*: counted from the text-only language tower on, every arm has as many steps as
the longest (V2, with its general-domain training, which is the same in both); what an arm has too few is added to its
stage 2. All steps have the same batch, and count alike, whichever parts learn.

Stage 2 (SFT) goes through single questions first and through questions, captions and descriptions mixed after, as
the embedded model does: in a mixture alone, yes/no answers stay at chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.training.recipes import EMBEDDED, PUBLISHED, LoRA, Recipe, vary

EQUAL = ("steps", "compute")
OURS = "ours"
MAIN = (OURS, "V1", "V2", "twin")
QUESTIONS, INSTRUCTIONS = "questions", "instructions"
DATA_SETS = {"radiology": DOMAINS[:3], "pathology": DOMAINS[3:]}
"""The small world's data sets for stage 3: questions about some domains, as VQA-RAD and SLAKE ask about radiology
and PathVQA about pathology."""


@dataclass(frozen=True)
class Stage:
    """One stage of an arm: the name of its collection of examples, and its recipe."""

    data: str
    recipe: Recipe


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: short.
        label: what it is.
        stages: in order.
        equal: "steps" or "compute".
        is_causal: train the autoregressive twin, by next tokens.
    """

    name: str
    label: str
    stages: tuple[Stage, ...]
    equal: str = "steps"
    is_causal: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps after the text-only language tower."""
        return sum(stage.recipe.count_steps() for stage in self.stages[1:])


BASE = {
    "text": ("text", 200),
    "alignment": ("alignment", 40),
    "questions": ("questions", 1000),
    "instruct": ("instruct", 1000),
    "vqa": ("vqa", 120),
    "general-alignment": ("alignment", 40),
    "general-instruct": ("instruct", 200),
}
"""Stage to the embedded recipe that it is a small copy of, and its steps; alignment has the published rate, since at
the embedded one image tokens grow alike, and yes/no answers come later."""


def make_recipes(changes: Sequence[str] = ()) -> dict[str, Recipe]:
    """The recipes of all stages. Batches are small; they are grouped by length where long answers are among short.

    Args:
        changes: "stage.setting=value", e.g. "instruct.steps=900"; settings as in `stages.vary`.

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
        stage: replace(EMBEDDED[kind], steps=steps, batch_size=32, group_by_length=stage == "instruct")
        for stage, (kind, steps) in BASE.items()
    }
    for stage in ("alignment", "general-alignment"):
        recipes[stage] = replace(recipes[stage], projector_lr=PUBLISHED["alignment"].projector_lr)
    return {stage: vary(recipe, own[stage]) for stage, recipe in recipes.items()}


def make_arms(changes: Sequence[str] = ()) -> tuple[Arm, ...]:
    """The grid, the rows of Table 4 first: ours is LLaDA-MedV, the twin stands where LLaVA-Med does.

    Args:
        changes: to the recipes, as in `make_recipes`.
    """
    recipes = make_recipes(changes)
    text, alignment = Stage("text", recipes["text"]), Stage("captions", recipes["alignment"])
    sft = (Stage(QUESTIONS, recipes["questions"]), Stage(INSTRUCTIONS, recipes["instruct"]))
    general = (
        Stage("general captions", recipes["general-alignment"]),
        Stage("general instructions", recipes["general-instruct"]),
    )
    vqa = {name: Stage(f"questions, {name}", recipes["vqa"]) for name in DATA_SETS}

    def tuned(**changes) -> tuple[Stage, ...]:
        return text, alignment, *(replace(stage, recipe=replace(stage.recipe, **changes)) for stage in sft)

    ours = Arm(OURS, "text-only language tower, alignment, SFT", (text, alignment, *sft))
    v1 = Arm("V1", "general-domain model, SFT", (text, *general, *sft))
    v2 = Arm("V2", "general-domain model, alignment, SFT", (text, *general, alignment, *sft))
    twin = replace(ours, name="twin", label="autoregressive twin: as ours, by next tokens", is_causal=True)
    unaligned = Arm("no-alignment", "as ours, without alignment", (text, *sft))
    return (
        *(ours, v1, v2, twin),
        *(equalise(arm, v2.steps) for arm in (ours, v1, v2, twin)),
        *(unaligned, equalise(unaligned, v2.steps)),
        *(
            Arm(f"stage3-{name}", f"ours, then stage 3 on {name}", (*ours.stages, stage))
            for name, stage in vqa.items()
        ),
        *(
            Arm(f"no-stage2-{name}", f"alignment, then stage 3 on {name}", (text, alignment, stage))
            for name, stage in vqa.items()
        ),
        Arm("lora", "as ours, SFT by LoRA of rank 16", tuned(lora=LoRA())),
        Arm("vision", "as ours, vision tower learns in SFT", tuned(vision_tower_lr=1e-4)),
    )


def choose_arms(arms: Sequence[Arm], names: Sequence[str] = (), equal: str | None = None) -> list[Arm]:
    """Arms by name; all of them without names. "main" are those of Table 4.

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


def equalise(arm: Arm, steps: int) -> Arm:
    """The same arm with `steps` in all after the text-only tower: its stage 2 is made longer.

    Raises:
        ValueError: if it has more already, or no stage 2.
    """
    added = steps - arm.steps
    places = [place for place, stage in enumerate(arm.stages) if stage.data == INSTRUCTIONS]
    if added < 0 or not places:
        raise ValueError(
            f"{arm.name} has {arm.steps} steps and {len(places)} stages 2; cannot give it {steps}"
        )
    stages = list(arm.stages)
    recipe = stages[places[-1]].recipe
    stages[places[-1]] = Stage(INSTRUCTIONS, replace(recipe, steps=recipe.count_steps() + added))
    return replace(arm, stages=tuple(stages), equal="compute")
