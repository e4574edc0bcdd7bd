"""One stage on phantoms, from a checkpoint: what `medv train --stage` runs. A killed run can be resumed.

The output folder holds `run.json` (what was asked for), `checkpoints/` while the run lasts and after it, and at the
end the model with its processor, `losses.csv` and `manifest.json`.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from medv_lab.model.checkpoint_files import embedded_folder
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion, MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.runtime import make_manifest
from medv_lab.training.embedded import (
    Budget,
    frozen_features,
    learn_tokenizer,
    make_model,
    make_processor,
    stage_examples,
)
from medv_lab.training.examples import Collator, ExampleDataset
from medv_lab.training.recipes import EMBEDDED, Recipe
from medv_lab.training.resuming import CHECKPOINTS, claim_folder
from medv_lab.training.trainer import Engine, run_stage
from medv_lab.training.vision import render_all

STAGES = ("alignment", "instruct", "vqa")
DEFAULT_ENGINE = Engine(save_steps=100)


@dataclass(frozen=True)
class PhantomRun:
    """What a run is; it can only be resumed as the same.

    Attributes:
        stage: "alignment", "instruct" or "vqa".
        recipe: how it is trained.
        start: the checkpoint to start from: "embedded", a folder or a hub id.
        scenes, question_rounds: how many phantoms, and how many balanced rounds of questions about them.
        seed: of data, order and noise.

    Raises:
        ValueError: for another stage.
    """

    stage: str
    recipe: Recipe
    start: str = "embedded"
    scenes: int = Budget.scenes
    question_rounds: int = Budget.question_rounds
    seed: int = 0

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage is {self.stage!r}; on phantoms the stages are {', '.join(STAGES)}")


def default_recipe(stage: str) -> Recipe:
    """The embedded recipe of a stage.

    Raises:
        ValueError: for a stage that is not there.
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}; allowed are {', '.join(STAGES)}")
    return EMBEDDED[stage]


def train_on_phantoms(
    run: PhantomRun,
    output: Path,
    *,
    engine: Engine = DEFAULT_ENGINE,
    resume: bool = False,
    log: Callable[[str], None] = print,
) -> None:
    """Train one stage; see the module's docstring for what the folder holds afterwards.

    Args:
        run: what to train.
        output: folder of the run.
        engine: how it is carried out.
        resume: go on from the newest complete checkpoint; from the beginning if the run was killed before its first.
        log: receives progress, from the first process only.

    Raises:
        ValueError: if the folder holds checkpoints and `resume` was not asked for, or those of another run.
    """
    if not is_first_process():
        log = be_silent
    claim_folder(output, asdict(run), resume=resume, write=is_first_process())
    budget = Budget(scenes=run.scenes, question_rounds=run.question_rounds, seed=run.seed)
    scenes = make_scenes("train", budget.scenes)
    model, processor = _start(run, scenes, log)
    dataset = ExampleDataset(stage_examples(run.stage, scenes, budget), processor.tokenizer, run.seed)
    features = frozen_features(model, render_all(scenes))
    carry_out(
        run,
        model,
        processor,
        dataset,
        Collator(processor.tokenizer.eos_token_id, features),
        output,
        engine=engine,
        resume=resume,
        log=log,
    )


def carry_out(
    run: Any,
    model: MedVLanguageModel,
    processor: MedVProcessor,
    dataset: Dataset,
    collator: Callable[[Sequence[Any]], dict[str, Any]],
    output: Path,
    *,
    engine: Engine,
    resume: bool,
    log: Callable[[str], None],
) -> None:
    """Train a claimed run and write what its folder holds afterwards.

    Args:
        run: a `PhantomRun`, or another dataclass with `recipe` and `seed`; the manifest keeps it.
        model, processor: what the run starts from.
        dataset, collator: encoded examples, and what makes batches of them.
        output: folder of the run.
        engine, resume, log: as in `train_on_phantoms`.
    """
    history = run_stage(
        model,
        run.recipe,
        dataset,
        collator,
        seed=run.seed,
        folder=output / CHECKPOINTS,
        log=log,
        engine=engine,
        resume=resume,
        output=output,
    )
    if is_first_process():
        processor.save_pretrained(output)
        history.to_csv(output / "losses.csv", index=False)
        manifest = make_manifest(
            asdict(run), seed=run.seed, model=model, device=model.device, dtype=run.recipe.precision
        )
        (output / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def is_first_process() -> bool:
    """Whether this is the process, of those that train together, that writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def _start(run: PhantomRun, scenes: list, log) -> tuple[MedVForMaskedDiffusion, MedVProcessor]:
    if run.start == "embedded" and not (embedded_folder() / "model.safetensors").is_file():
        log(
            "this copy of medv-lab has no embedded checkpoint: starting from fresh weights, vision tower included"
        )
        tokenizer = learn_tokenizer(scenes, run.seed)
        model = make_model(tokenizer, run.seed).eval()
        return model, make_processor(tokenizer, model.config)
    return load(run.start, device="cpu", dtype="float32", attn_implementation="eager")


def be_silent(line: str) -> None:
    """Where only the first process reports."""
