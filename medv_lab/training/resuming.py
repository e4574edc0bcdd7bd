"""Checkpoints of a run that may be killed at any moment: whole or not there, and read without unpickling objects.

A checkpoint is written into the folder `PARTIAL`, flushed to disk and then renamed, so a folder named
`checkpoint-<step>` is complete. What we write ourselves is safetensors and JSON. transformers keeps optimiser,
schedule and library generators in torch's format; it reads them with `torch.load(weights_only=True)`, which
builds tensors and plain containers only.
"""

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import get_last_checkpoint

PARTIAL = "partial"
GENERATOR_FILE = "generator.safetensors"


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
