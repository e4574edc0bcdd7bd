"""Device and dtype of a run, its home folder and its manifest.

Knows no model class and no file format but safetensors' bytes. torch is imported inside the functions that
need it, so that importing this module costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import medv_lab

if TYPE_CHECKING:
    import torch

_MODEL_FIELDS = ("name", "sha256", "revision")
DTYPES = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = ("auto", "bf16", "fp32")
ATTENTION = {"cpu": "eager", "cuda": "sdpa"}
"""Implementation of attention that is fastest for the embedded model's short sequences, by kind of device."""
_RECORDED_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


@dataclass(frozen=True)
class Placement:
    """Device and dtype of a run, and why they were chosen."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def dtype_name(self) -> str:
        """The dtype without its module, e.g. "float32"."""
        return str(self.dtype).removeprefix("torch.")


def resolve_device(device: str = "auto", dtype: str = "auto", quantization: str | None = None) -> Placement:
    """Choose device and dtype; nothing falls back silently.

    Args:
        device: "auto" (CUDA if there is one, else CPU), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on CUDA, float32 on CPU), "float32", "bfloat16" or "float16"; a torch dtype
            is taken as it is.
        quantization: in how few bits most weights are to be held; dtype "auto" is then bfloat16 wherever the device
            computes it.

    Returns:
        The placement; `.reason` says in one sentence what was chosen and why.

    Raises:
        ValueError: for a device or dtype outside these.
        RuntimeError: if CUDA is asked for and this machine or this torch has none.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = str(device)
    kind, _, index = device.partition(":")
    if device == "auto":
        kind = device = "cuda" if count else "cpu"
        why = "device auto: a CUDA device is there" if count else "device auto: no CUDA device"
    elif kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(
            f"device is {device!r}; allowed are 'auto', 'cpu', 'cuda' and 'cuda:N' with N = 0, 1, ..."
        )
    elif kind == "cuda" and int(index or 0) >= count:
        raise RuntimeError(
            f"device {device!r} was asked for, but torch {torch.__version__} sees {count} CUDA device(s) here; use "
            "device='cpu' or 'auto', or install a torch build with CUDA on a machine with a GPU"
        )
    else:
        why = f"device {device} as asked"
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; allowed are {', '.join(DTYPES)}")
    if dtype == "auto":
        is_coarse = kind == "cuda" or (quantization is not None and has_bfloat16(torch.device(device)))
        dtype = "bfloat16" if is_coarse else "float32"
        why += f"; dtype auto: {dtype} on {kind}"
    else:
        why += f"; dtype {dtype} as asked"
    held = dtype if quantization is None else f"{dtype} with {quantization} weights"
    return Placement(torch.device(device), getattr(torch, dtype), f"Running on {device} in {held} ({why}).")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes bfloat16 in units of its own, not in emulation, which is many times slower.

    On a CPU these are AVX512-BF16, or AMX-BF16, which no CPU has without the former; oneDNN must be allowed to use them
    (ONEDNN_MAX_CPU_ISA).
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # the first question is about the CPU alone, and oneDNN says yes to AVX512 without BF16 too
    return torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def resolve_precision(precision: str, device: torch.device) -> str:
    """Choose the precision of training on a device.

    Args:
        precision: "auto" ("bf16" where the device has it, else "fp32"), "bf16" (autocast over fp32 weights) or "fp32".
        device: that trains.

    Raises:
        ValueError: for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; allowed are {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "bf16" if has_bfloat16(device) else "fp32"
    return precision


def medv_home() -> Path:
    """Return the folder for results and caches of runs: MEDV_HOME, or ~/.cache/medv-lab; it is not created."""
    named = os.environ.get("MEDV_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "medv-lab"


def available_memory(device: torch.device) -> int:
    """Return the bytes that can be taken now: free GPU memory, or available main memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def examine_machine() -> dict[str, Any]:
    """Say what this machine has.

    Returns:
        {python, versions, cuda_build, memory_total, memory_available, disk_free, home, devices: [{name, total,
        free}], placement}; bytes throughout.
    """
    import torch

    devices = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        devices.append({"name": torch.cuda.get_device_name(number), "total": total, "free": free})
    home = medv_home()
    existing = next(parent for parent in (home, *home.parents) if parent.is_dir())
    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "cuda_build": torch.version.cuda,
        "memory_total": psutil.virtual_memory().total,
        "memory_available": psutil.virtual_memory().available,
        "disk_free": shutil.disk_usage(existing).free,
        "home": str(home).replace(str(Path.home()), "~"),
        "devices": devices,
        "placement": resolve_device().reason,
    }


def format_bytes(count: int) -> str:
    """Write a size for people: '17.1 GB' (decimal units)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def hash_model(folder: Path | str) -> str:
    """Return the SHA-256 over the bytes of a checkpoint's safetensors files, in the order of their names.

    Raises:
        FileNotFoundError: if the folder holds no safetensors file.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no .safetensors file to hash in {folder}; give a checkpoint folder")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def make_manifest(
    settings: Mapping[str, Any],
    *,
    seed: int | None = None,
    model: Any = None,
    device: Any = None,
    dtype: Any = None,
) -> dict[str, Any]:
    """Return a record of what made a result: JSON-able, without machine names or paths.

    Args:
        settings: what was asked for; values that JSON cannot hold are written as text.
        seed: the seed in force, if any.
        model: a loaded model (its `medv_source` is recorded), a mapping with name, sha256 and revision,
            or None.
        device: device of the run; by default the model's.
        dtype: dtype of the run; by default the model's.

    Returns:
        {created, medv_lab, versions, commit, dirty, settings, seed, model, device, dtype, quantization}; the last says
        in how few bits which library holds the weights of most layers, or is None.
    """
    commit, dirty = _checkout_state()
    device = device if device is not None else getattr(model, "device", None)
    dtype = dtype if dtype is not None else getattr(model, "dtype", None)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "medv_lab": medv_lab.__version__,
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in _RECORDED_PACKAGES},
        "commit": commit,
        "dirty": dirty,
        "settings": json.loads(json.dumps(settings, default=_plain)),
        "seed": seed,
        "model": _model_record(model),
        "device": None if device is None else str(device),
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
        "quantization": getattr(getattr(model, "medv_source", None), "quantization", None),
    }


def _model_record(model: Any) -> dict[str, Any] | None:
    if model is None:
        return None
    if isinstance(model, Mapping):
        return {key: model.get(key) for key in _MODEL_FIELDS}
    return {key: getattr(getattr(model, "medv_source", None), key, None) for key in _MODEL_FIELDS}


def _checkout_state() -> tuple[str, bool | None]:
    """Return (commit, has uncommitted changes) of the checkout with this package, else ("unknown", None)."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown", None
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown", None
    return done.stdout.strip().removesuffix("-dirty"), done.stdout.strip().endswith("-dirty")


def _plain(value: Any) -> str:
    """Write what JSON cannot hold: a path without its folder, anything else as text."""
    return value.name if isinstance(value, Path) else str(value)
