"""One runner for a list of stages; a run that was killed goes on where it was.

The runner's folder holds
    KEY.safetensors     the weights after a stage, once it is done
    KEY/                checkpoints of the stage that is in work, if the engine writes any
    .KEY.lock           locked by the process that has it in work; several processes may share a folder

A key says all that leads to the weights (where the chain starts, data and recipe of every stage up to this one, the
seed), so chains that begin alike share what they have in common, and weights of another chain are never taken.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.store import ExclusiveAccess, replace_text
from medv_lab.training.callbacks import find_checkpoint
from medv_lab.training.recipes import Engine, Recipe
from medv_lab.training.trainer import ENGINE, Collate, Items, run_stage

RUN_FILE, CHECKPOINTS = "run.json", "checkpoints"

Log = Callable[[str], None]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of a chain.

    Attributes:
        name: for reports of progress.
        key: of the weights that it ends with; names a file.
        recipe: what to train and how.
        load_data: returns encoded dialogues and what makes batches of them; called only if the stage is trained.
    """

    name: str
    key: str
    recipe: Recipe
    load_data: Callable[[], tuple[Items, Collate]]


class TensorCache:
    """Tensors by key in a folder that several processes may share; a file is whole or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        return (self.folder / f"{key}.safetensors").is_file()

    def load(self, key: str) -> Tensors:
        """Read the tensors of a key."""
        return load_file(self.folder / f"{key}.safetensors")

    def save(self, key: str, tensors: Tensors) -> None:
        """Write the tensors of a key, replacing those that are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{key}.{uuid.uuid4().hex[:12]}"
        save_file(tensors, draft)
        draft.replace(self.folder / f"{key}.safetensors")

    def compute(self, key: str, work: Callable[[], Tensors]) -> Tensors:
        """Return the tensors of a key; where they are not there, `work` makes them, and they are kept.

        A process that wants what another one is making waits for it.
        """
        if key not in self:
            with ExclusiveAccess(self.folder, key, patience=-1):
                if key not in self:
                    self.save(key, work())
        return self.load(key)


class StageRunner:
    """Trains lists of stages.

    Args:
        folder: see the module's docstring; outside of the repository, since it is large.
        engine: how the stages are carried out.
        log: receives progress.
    """

    def __init__(self, folder: Path, *, engine: Engine = ENGINE, log: Log = print) -> None:
        self.cache, self.engine, self.log = TensorCache(folder), engine, log
        self._trained: set[str] = set()  # keys of what this runner trained itself

    def train(
        self,
        model: MedVLanguageModel,
        stages: Sequence[Stage],
        *,
        seed: int,
        fresh: bool = False,
        after_stage: Callable[[Stage], None] | None = None,
    ) -> None:
        """Train a model in place through all stages; what is kept is not trained again.

        Args:
            model: as it is before the first stage.
            stages: in order.
            seed: of order and noise.
            fresh: train every stage that this runner has not trained itself, whatever is kept.
            after_stage: called behind every stage that was trained.

        Raises:
            InUseError: if another process has a stage in work; what was trained before it is kept.
        """
        # start from the last weights that are kept
        kept = [
            number
            for number, stage in enumerate(stages)
            if (stage.key in self._trained if fresh else stage.key in self.cache)
        ]
        first = kept[-1] + 1 if kept else 0
        if kept:
            model.load_state_dict(self.cache.load(stages[kept[-1]].key))
            self.log(f"{stages[kept[-1]].name}: weights taken from {stages[kept[-1]].key}")

        # train the stages after it
        for stage in stages[first:]:
            with ExclusiveAccess(self.cache.folder, stage.key, patience=0):
                if stage.key in self.cache and not fresh:  # another process made it in the meantime
                    model.load_state_dict(self.cache.load(stage.key))
                    continue
                self._train_stage(model, stage, seed, fresh)
            if after_stage is not None:
                after_stage(stage)

    def _train_stage(self, model: MedVLanguageModel, stage: Stage, seed: int, fresh: bool) -> None:
        checkpoints = self.cache.folder / stage.key
        if fresh:
            shutil.rmtree(checkpoints, ignore_errors=True)
        run_stage(
            model,
            stage.recipe,
            *stage.load_data(),
            seed=seed,
            folder=checkpoints,
            name=stage.name,
            log=self.log,
            engine=self.engine,
            resume=True,
        )
        self.cache.save(stage.key, model.state_dict())
        self._trained.add(stage.key)
        shutil.rmtree(checkpoints, ignore_errors=True)


def claim_folder(folder: Path, asked: Mapping[str, Any], *, resume: bool) -> None:
    """Note what a run's folder is for in `run.json`, or see that it is for the same.

    Raises:
        ValueError: if the folder holds checkpoints and `resume` was not asked for, or those of another run.
    """
    asked, record = json.loads(json.dumps(asked)), folder / RUN_FILE
    if resume and record.is_file():
        noted = json.loads(record.read_text(encoding="utf-8"))
        differing = [name for name in asked if asked[name] != noted.get(name)]
        if differing:
            raise ValueError(
                f"{folder.name} holds another run; different are {', '.join(differing)}. Resume it as it was started, "
                "or choose another folder"
            )
    elif find_checkpoint(folder / CHECKPOINTS) is not None:
        raise ValueError(f"{folder.name} holds checkpoints of a run; resume it, or choose another folder")
    if is_main_process():
        replace_text(record, json.dumps(asked, indent=1) + "\n")


def is_main_process() -> bool:
    """Return whether this is the process, of those that train together, that writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0
