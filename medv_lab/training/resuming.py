"""Checkpoints of a run that may be killed at any moment: whole or not there, and read without unpickling objects.

A checkpoint is written into the folder `PARTIAL`, flushed to disk and then renamed, so a folder named
`checkpoint-<step>` is complete. What we write ourselves is safetensors and JSON. transformers keeps optimiser,
schedule and library generators in torch's format; it reads them with `torch.load(weights_only=True)`, which
builds tensors and plain containers only.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import get_last_checkpoint

PARTIAL = "partial"
GENERATOR_FILE = "generator.safetensors"
RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"


def claim_folder(folder: Path, asked: Mapping[str, Any], *, resume: bool, write: bool = True) -> None:
    """Note what a folder is for (`write`: one process of several does), or see that it is for the same.

    Raises:
        ValueError: if the folder holds checkpoints and `resume` was not asked for, or those of another run.
    """
    asked, record = json.loads(json.dumps(asked)), folder / RUN_FILE
    if resume and record.is_file():
        noted = json.loads(record.read_text())
        differing = [name for name in asked if asked[name] != noted.get(name)]
        if differing:
            raise ValueError(
                f"{folder.name} holds another run; different are {', '.join(differing)}. Resume it as it was started, "
                "or choose another folder"
            )
    elif find_checkpoint(folder / CHECKPOINTS) is not None:
        raise ValueError(f"{folder.name} holds checkpoints of a run; resume it, or choose another folder")
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        draft = record.with_suffix(".draft")
        draft.write_text(json.dumps(asked, indent=1) + "\n")
        draft.replace(record)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if found is None else Path(found)


def clear_partial(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def publish_checkpoint(folder: Path, name: str) -> None:
    """Make the half-written checkpoint `name` a complete one, in one step that cannot be seen half done."""
    written = folder / PARTIAL / name
    for path in [*written.rglob("*"), written]:
        _flush(path)
    written.rename(folder / name)
    _flush(folder)


def save_generator(folder: Path, now: torch.Tensor, epoch: torch.Tensor) -> None:
    """Write the generator's state, and the state that the running epoch started from (its order follows from it)."""
    save_file({"now": now, "epoch": epoch}, folder / GENERATOR_FILE)


def load_generator(folder: Path) -> dict[str, torch.Tensor]:
    """The states "now" and "epoch".

    Raises:
        FileNotFoundError: if the checkpoint was not written by this trainer.
    """
    path = folder / GENERATOR_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder.name} has no {GENERATOR_FILE}: it was not written by medv-lab; its draws cannot go on"
        )
    return load_file(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
