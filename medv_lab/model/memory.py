"""This machine's memory, what the known checkpoints need of it, and what fits.

Sizes are bytes. torch is imported inside the functions that need it.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medv_lab.model.checkpoint_files import embedded_folder, list_tensors
from medv_lab.runtime import medv_home, resolve_device

if TYPE_CHECKING:
    import torch

BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}
WORKING_SHARE = 0.1
"""Room for the activations of one question, as a share of the weights: a generous rule of thumb."""


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint that medv-lab can load, and where it comes from."""

    name: str
    where: str
    parameters: int
    licence: str
    note: str = ""

    def weight_bytes(self, dtype: str) -> int:
        """Return the size of the weights in memory."""
        return self.parameters * BYTES_OF_DTYPE[dtype]

    def needed_bytes(self, dtype: str) -> int:
        """Return the size of the weights with room to answer one question."""
        return int(self.weight_bytes(dtype) * (1 + WORKING_SHARE))


PARAMETERS_WITH_VISION = 8_434_837_024
PARAMETERS_LANGUAGE = 8_015_581_184


def known_checkpoints() -> list[KnownCheckpoint]:
    """Return the embedded checkpoint (sized from its file, if it is there) and the published ones."""
    published = [
        KnownCheckpoint(
            "LLaDA-MedV",
            "linked from the repository of the paper (arXiv 2508.01617)",
            PARAMETERS_WITH_VISION,
            "see its model page; research use, not for clinical decisions",
        ),
        KnownCheckpoint("LLaDA-V", "GSAI-ML/LLaDA-V", PARAMETERS_WITH_VISION, "see its model page"),
        KnownCheckpoint(
            "LLaDA-8B-Instruct",
            "GSAI-ML/LLaDA-8B-Instruct",
            PARAMETERS_LANGUAGE,
            "see its model page",
            "language only: the vision tower comes from another folder, the projector starts fresh",
        ),
    ]
    folder = embedded_folder()
    if not folder.is_dir():
        return published
    count = sum(math.prod(tensor.shape) for tensor in list_tensors(folder))
    note = "knows phantoms only"
    return [KnownCheckpoint("embedded", "shipped with medv-lab", count, "Apache-2.0", note), *published]


def available_memory(device: torch.device) -> int:
    """Return the bytes that can be taken now: free GPU memory, or available main memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return _main_memory()[1]


def doctor() -> dict[str, Any]:
    """Examine this machine, and say of each known checkpoint what it needs and where it fits.

    Returns:
        {python, versions, memory_total, memory_available, disk_free, home, devices: [{name, total, free}],
        placement, checkpoints: [{name, where, parameters, licence, note, needs: {dtype: bytes},
        fits: {"cpu float32": bool, "cpu bfloat16": bool, "cuda:0 bfloat16": bool, ...}}]}; bytes throughout.
    """
    import torch

    total, available = _main_memory()
    gpus = _gpus()
    rooms = {"cpu float32": (total, "float32"), "cpu bfloat16": (total, "bfloat16")}
    rooms |= {f"cuda:{number} bfloat16": (gpu["total"], "bfloat16") for number, gpu in enumerate(gpus)}
    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "cuda_build": torch.version.cuda,
        "memory_total": total,
        "memory_available": available,
        "disk_free": shutil.disk_usage(_existing(medv_home())).free,
        "home": str(medv_home()).replace(str(Path.home()), "~"),
        "devices": gpus,
        "placement": resolve_device().reason,
        "checkpoints": [
            {
                "name": checkpoint.name,
                "where": checkpoint.where,
                "parameters": checkpoint.parameters,
                "licence": checkpoint.licence,
                "note": checkpoint.note,
                "needs": {dtype: checkpoint.needed_bytes(dtype) for dtype in ("float32", "bfloat16")},
                "fits": {
                    room: checkpoint.needed_bytes(dtype) <= size for room, (size, dtype) in rooms.items()
                },
            }
            for checkpoint in known_checkpoints()
        ],
    }


def format_bytes(count: int) -> str:
    """Write a size for people: '17.1 GB' (decimal units)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append({"name": torch.cuda.get_device_name(number), "total": total, "free": free})
    return found


def _main_memory() -> tuple[int, int]:
    """(total, available) main memory; psutil's numbers if it is installed, else the system's page counts."""
    if util.find_spec("psutil") is not None:
        import psutil

        memory = psutil.virtual_memory()
        return memory.total, memory.available
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())
