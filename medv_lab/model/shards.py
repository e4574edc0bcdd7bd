"""What a checkpoint folder holds: an inventory of its safetensors files, from their headers alone.

Nothing here reads weights, and nothing here can read a pickle. Every defect of a folder is one
`CheckpointError` that says what to do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
BYTES_OF_DTYPE = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
_SHOWN = 6


class CheckpointError(Exception):
    """A checkpoint that cannot be loaded; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint: where it is, under which key, and what its header says."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes as stored."""
        return math.prod(self.shape) * BYTES_OF_DTYPE[self.dtype]


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a checkpoint's JSON files.

    Raises:
        CheckpointError: if it is absent or no JSON object.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} has no {path.name}; give a complete checkpoint folder (config.json, "
            "tokenizer.json and safetensors files side by side)"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}); copy or download the file again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a JSON object; copy the file again"
        )
    return content


def list_tensors(folder: Path) -> list[StoredTensor]:
    """Take stock of a checkpoint: `model.safetensors`, or the shards that its index names.

    Raises:
        CheckpointError: for no safetensors file (pickles are never read), a missing shard, a corrupt or
            truncated file, a file without its index, or a tensor that the index promises and no shard has.
    """
    if (folder / SINGLE).is_file():
        return _read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _list_shards(folder)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return _read_header(found[0])
    if found:
        raise CheckpointError(
            f"{folder} holds {len(found)} safetensors files but no {INDEX} that says how they belong "
            "together; copy the index from where the shards came from"
        )
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds pickled weights only ({shorten(pickles)}), which medv-lab never loads because "
            "a pickle can run code; get the safetensors version, or convert the files with a tool that you "
            "trust"
        )
    raise CheckpointError(f"{folder} holds no weights; expected {SINGLE}, or {INDEX} with its shards")


def _list_shards(folder: Path) -> list[StoredTensor]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(v, str) for v in weight_map.values())
    ):
        raise CheckpointError(
            f"{folder / INDEX} has no weight_map of tensor names to file names; copy it again"
        )
    names = sorted(set(weight_map.values()))
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if foreign:
        raise CheckpointError(
            f"{folder / INDEX} names files that are not safetensors files of this folder: {shorten(foreign)}"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards: {shorten(missing)}; copy or "
            "download them again"
        )
    tensors = [tensor for name in names for tensor in _read_header(folder / name)]
    absent = sorted(weight_map.keys() - {tensor.key for tensor in tensors})
    if absent:
        raise CheckpointError(
            f"{folder / INDEX} promises {len(absent)} tensors that no shard has: {shorten(absent)}; shards "
            "and index are not of one checkpoint"
        )
    return tensors


def _read_header(file: Path) -> list[StoredTensor]:
    try:
        with safe_open(file, framework="numpy") as content:
            slices = {key: content.get_slice(key) for key in content.keys()}  # noqa: SIM118 (no mapping)
            tensors = [
                StoredTensor(file, key, tuple(part.get_shape()), part.get_dtype())
                for key, part in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is not a readable safetensors file ({error}): it is damaged, truncated or something "
            "else; copy or download it again"
        ) from error
    coded = [f"{tensor.key} ({tensor.dtype})" for tensor in tensors if tensor.dtype not in BYTES_OF_DTYPE]
    if coded:
        raise CheckpointError(
            f"{file} holds {len(coded)} tensors of types that are not plain floating point: "
            f"{shorten(coded)}; allowed are {', '.join(BYTES_OF_DTYPE)}: get the checkpoint that is not "
            "quantised"
        )
    return tensors


def shorten(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
