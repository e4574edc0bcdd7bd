"""Settings that fit: in which dtype or in how few bits a checkpoint can be loaded on this machine, best first.

Nothing is loaded: weights are counted from the configuration, and what a question needs beside them is taken as a tenth
of the weights in 2 bytes each. Whole weights come before int8 and int8 before int4, since each moves answers further
from bfloat16 (`medv exactness --against int8`); a GPU comes before the CPU, and spreading a model over devices, which
is slow but exact, before a CPU or a disk alone. On a CPU bfloat16 comes first where the CPU computes it, since it was 4
times as fast as float32 (a 4096 x 12288 layer, 2 cores).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import torch

from medv_lab.model.checkpoint_files import (
    WORKING_SHARE,
    CheckpointError,
    find_source,
    known_checkpoints,
    read_json,
)
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.quantization import QUANTIZATIONS, count_bytes, library_of
from medv_lab.runtime import examine_machine, has_bfloat16


@dataclass(frozen=True)
class Proposal:
    """One way to load a checkpoint.

    Attributes:
        device: "cuda:0", "cpu", or "all" for a model that is spread over GPUs, memory and disk.
        dtype: of what is not quantised.
        quantization: None, "int8" or "int4".
        needs: bytes of the weights and of one question.
        free: bytes that are free there now.
        lacks: package that must be installed first; "" if none.
    """

    device: str
    dtype: str
    quantization: str | None
    needs: int
    free: int
    lacks: str = ""

    @property
    def fits(self) -> bool:
        """Whether it can be loaded now."""
        return self.needs <= self.free and not self.lacks

    @property
    def settings(self) -> dict[str, str]:
        """Arguments of `load`."""
        if self.device == "all":
            return {"dtype": self.dtype, "offload": "offload"}
        chosen = {"device": self.device, "dtype": self.dtype}
        return chosen if self.quantization is None else chosen | {"quantization": self.quantization}

    @property
    def options(self) -> str:
        """Options of the command line."""
        return " ".join(f"--{name} {value}" for name, value in self.settings.items())


def propose_settings(model: str | Path, machine: dict[str, Any] | None = None) -> list[Proposal]:
    """List the ways to load a checkpoint, best first: the first that fits is the one to take.

    Args:
        model: "embedded", a folder, a hub id in the cache, or a known checkpoint by its name ("LLaDA-MedV"), which need
            not be here.
        machine: as `examine_machine` describes it; by default this one.

    Raises:
        CheckpointError: if nothing is known of the model.
    """
    machine = examine_machine() if machine is None else machine
    shapes, memory = _shapes_of(model), machine["memory_available"]
    work = int(WORKING_SHARE * count_bytes(shapes, 2))
    gpus = {f"cuda:{number}": one["free"] for number, one in enumerate(machine["devices"])}

    def ways(device: str, free: int, dtypes: tuple[str, ...]) -> list[Proposal]:
        place = torch.device(device)
        size = {dtype: getattr(torch, dtype).itemsize for dtype in dtypes}
        found = [
            Proposal(device, dtype, None, count_bytes(shapes, size[dtype]) + work, free) for dtype in dtypes
        ]
        for name in QUANTIZATIONS:
            library = library_of(name, place)
            needs = count_bytes(shapes, size[dtypes[0]], name) + work
            lacks = "" if util.find_spec(library) else library
            found.append(Proposal(device, dtypes[0], name, needs, free, lacks))
        return found

    proposals = [way for device, free in gpus.items() for way in ways(device, free, ("bfloat16",))]
    is_coarse = has_bfloat16(torch.device("cpu"))
    whole = count_bytes(shapes, 2) + work
    if gpus:
        proposals.append(Proposal("all", "bfloat16", None, whole, sum(gpus.values()) + memory))
    proposals += ways("cpu", memory, ("bfloat16", "float32") if is_coarse else ("float32", "bfloat16"))
    disk = machine["disk_free"]
    proposals.append(Proposal("all", "bfloat16", None, whole, sum(gpus.values()) + memory + disk))
    return proposals


def _shapes_of(model: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors: of its configuration, or the published ones of a known name."""
    known = {one.name for one in known_checkpoints()} - {"embedded"}
    content: dict[str, Any] = {}
    if str(model) not in known:
        folder = find_source(model).folder
        content = read_json(folder / "config.json")
        if content.get("model_type") != MedVConfig.model_type:
            raise CheckpointError(
                f"{folder / 'config.json'} says model_type {content.get('model_type')!r}; settings are proposed for "
                f"{MedVConfig.model_type!r} folders and for {', '.join(sorted(known))}"
            )
    with torch.device("meta"):
        state = MedVForMaskedDiffusion(MedVConfig.from_dict(content)).state_dict()
    return {name: tuple(weight.shape) for name, weight in state.items()}
