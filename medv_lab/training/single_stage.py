"""One stage from a checkpoint, on phantoms or on real dialogues: `medv train --stage`. A killed run can be resumed.

The output folder holds `run.json` (what was asked for), `checkpoints/` while the run lasts and after it, and at the
end the model with its processor, `losses.csv` and `manifest.json`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medv_lab.data.instructions import Dialogue, from_question, read_dialogues
from medv_lab.data.vqa import read_vqa
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.runtime import ATTENTION, make_manifest, resolve_device, resolve_precision
from medv_lab.store import replace_text
from medv_lab.training.embedded import stage_examples
from medv_lab.training.examples import Collator, DialogueDataset, PictureCollator, encode_examples
from medv_lab.training.recipes import Budget, Engine, Recipe
from medv_lab.training.stages import CHECKPOINTS, Log, claim_folder, is_main_process
from medv_lab.training.trainer import ENGINE, Collate, Items, run_stage
from medv_lab.training.vision import frozen_features, render_all

Prepared = tuple[MedVLanguageModel, MedVProcessor, Items, Collate]


@dataclass(frozen=True)
class PhantomRun:
    """A run on phantoms; it can only be resumed as the same.

    Attributes:
        stage: "alignment", "instruct" or "vqa".
        recipe: how it is trained.
        start: the checkpoint to start from: "embedded", a folder or a hub id.
        scenes, question_rounds: how many phantoms, and how many balanced rounds of questions about them.
        seed: of data, order and noise.
    """

    stage: str
    recipe: Recipe
    start: str = "embedded"
    scenes: int = Budget.scenes
    question_rounds: int = Budget.question_rounds
    seed: int = 0


@dataclass(frozen=True)
class DialogueRun:
    """A run on real dialogues; it can only be resumed as the same.

    Attributes:
        recipe: how it is trained.
        data: name of the file or folder that the dialogues come from.
        dialogues: how many there are.
        start: the checkpoint to start from: "embedded", a folder or a hub id.
        seed: of order and noise.
    """

    recipe: Recipe
    data: str
    dialogues: int
    start: str = "embedded"
    seed: int = 0


def train_on_phantoms(run: PhantomRun, output: Path, *, engine: Engine = ENGINE, **how: Any) -> None:
    """Train one stage on phantoms; `engine` and `how` are what `train_stage` takes by name."""

    def prepare() -> Prepared:
        attention = ATTENTION[resolve_device(engine.device).device.type]
        model, processor = load(run.start, device="cpu", dtype="float32", attn_implementation=attention)
        scenes, tokenizer = make_scenes("train", run.scenes), processor.tokenizer
        budget = Budget(scenes=run.scenes, question_rounds=run.question_rounds, seed=run.seed)
        items = encode_examples(stage_examples(run.stage, scenes, budget), tokenizer, run.seed)
        collator = Collator(tokenizer.eos_token_id, frozen_features(model, render_all(scenes)))
        return model, processor, items, collator

    train_stage(run, prepare, output, engine=engine, **how)


def train_on_dialogues(
    run: DialogueRun, dialogues: Sequence[Dialogue], images: Path, output: Path, **how: Any
) -> None:
    """Train one stage on real dialogues; `how` is what `train_stage` takes by name.

    Where the projector alone learns (alignment), a caption follows its picture without a chat frame.

    Args:
        run: what to train.
        dialogues: its data.
        images: folder that names of pictures are relative to.
        output: folder of the run.

    Raises:
        ImageError: for a picture that cannot be opened.
    """

    def prepare() -> Prepared:
        model, processor = load(run.start, device="cpu", dtype="float32")
        is_alignment = run.recipe.parts == ("projector",)
        dataset = DialogueDataset(dialogues, processor, is_alignment)
        return model, processor, dataset, PictureCollator(processor, images, is_alignment)

    train_stage(run, prepare, output, **how)


def train_stage(
    run: PhantomRun | DialogueRun,
    prepare: Callable[[], Prepared],
    output: Path,
    *,
    engine: Engine = ENGINE,
    resume: bool = False,
    log: Log = print,
) -> None:
    """Train one stage from a checkpoint; see the module's docstring for what the folder holds afterwards.

    Args:
        run: what to train.
        prepare: loads the checkpoint and the data.
        output: folder of the run.
        engine: how it is carried out.
        resume: go on from the newest complete checkpoint; from the beginning if the run was killed before its first.
        log: receives progress, on the main process.

    Raises:
        ValueError: if the folder holds checkpoints and `resume` was not asked for, or those of another run.
    """
    claim_folder(output, asdict(run), resume=resume)
    model, processor, dataset, collator = prepare()
    losses = run_stage(
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
    if is_main_process():
        processor.save_pretrained(output)
        losses.to_csv(output / "losses.csv", index=False)
        precision = resolve_precision(run.recipe.precision, model.device)
        manifest = make_manifest(
            asdict(run), seed=run.seed, model=model, device=model.device, dtype=precision
        )
        replace_text(output / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def read_training_data(path: Path, dataset: str | None = None) -> list[Dialogue]:
    """Read all dialogues of an instruction file, or the English training questions of a VQA release as dialogues.

    Args:
        path: the file, or the release's folder, which names of pictures are then relative to.
        dataset: vqa-rad, slake or pathvqa for a release; None for a file.

    Raises:
        ValueError: for a broken row (`medv data check` lists them all), an unknown data set, or a release without
            training questions.
    """
    if dataset is None:
        return list(read_dialogues(path))
    reading = read_vqa(dataset, path)
    if reading.broken:
        raise ValueError(f"{path.name}: {len(reading.broken)} broken rows, the first is {reading.broken[0]}")
    own = [one for one in reading.questions if one.split == "train" and one.tags["language"] == "en"]
    if not own:
        raise ValueError(f"{path.name} holds no training split of {dataset}; add the release's file of it")
    return [from_question(one, path) for one in own]
