"""One answer of a checkpoint on this machine, in a process of its own: seconds per pass, and memory at its peak.

A trial loads a folder in a dtype or in few bits, and answers one question about one picture of a single tile: 729
patches, 730 positions with the newline behind them. The first pass computes every position; with the dual cache the
later ones compute the answer's only.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import psutil
import torch

from medv_lab.config import DualCache, GenerationSettings
from medv_lab.generation import ask
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.quantization import QUANTIZATIONS, count_bytes
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene
from medv_lab.runtime import has_bfloat16, make_manifest, resolve_device
from medv_lab.store import replace_text

SETTINGS = GenerationSettings(gen_length=16, block_length=16, steps=8, cache=DualCache())
QUESTION = "Describe the image."
SECONDS_BETWEEN_LOOKS = 0.02


@dataclass
class PeakMemory:
    """Watches the memory of this process while it is entered.

    Attributes:
        resident: bytes of main memory at the peak.
        private: those of them that no file backs: the others are pages of files, which the system takes back when it
            needs them.
    """

    resident: int = 0
    private: int = 0
    _ended: Event = field(default_factory=Event, repr=False)

    def __enter__(self) -> PeakMemory:
        self._ended.clear()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        process, is_last = psutil.Process(), False
        while not is_last:
            is_last = self._ended.wait(SECONDS_BETWEEN_LOOKS)
            seen = process.memory_info()
            self.resident = max(self.resident, seen.rss)
            self.private = max(self.private, seen.rss - getattr(seen, "shared", 0))


def run_trials(folder: Path, precisions: list[str], size: str, output: Path) -> list[dict[str, Any]]:
    """Answer once in each precision, one process after the other, and write `{size}-{precision}.json` each.

    Args:
        folder: of the checkpoint.
        precisions: dtypes ("float32", "bfloat16") and quantizations ("int8", "int4").
        size: what files and records call the checkpoint.
        output: folder of the results.

    Returns:
        What the files hold, see `answer_once`.

    Raises:
        CheckpointError: where a precision needs more memory than is free.
    """
    output.mkdir(parents=True, exist_ok=True)
    found = []
    for precision in precisions:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:  # so that no peak is another's
            result = {"size": size, **one.submit(answer_once, folder, precision).result()}
        replace_text(output / f"{size}-{precision}.json", json.dumps(result, indent=1) + "\n")
        found.append(result)
    return found


def answer_once(folder: Path, precision: str) -> dict[str, Any]:
    """Load a checkpoint and answer one question about one picture.

    Returns:
        JSON-able: `precision`, `machine`, `parameters`, `weights` (bytes), `load` and `answer` (each with `seconds`,
        and bytes at the peak: `resident`, `private`), `prompt` (positions), `passes`, `seconds_first_pass` (which sees
        the picture and computes every position), `seconds_later_pass` (their median), `manifest`.
    """
    is_coarse = precision in QUANTIZATIONS
    machine = describe_machine(resolve_device().device)
    started, peak = time.perf_counter(), PeakMemory()
    with peak:
        model, processor = load(
            folder, dtype="auto" if is_coarse else precision, quantization=precision if is_coarse else None
        )
    loading = {"seconds": time.perf_counter() - started, "resident": peak.resident, "private": peak.private}
    manifest = make_manifest(
        SETTINGS.to_dict(), seed=SETTINGS.seed, model=model
    )  # hashes the files: not timed
    processor.image_aspect_ratio = "square"
    picture = render(make_scene("test", 0))
    started, peak = time.perf_counter(), PeakMemory()
    ends: list[float] = []
    with peak:
        ask(
            model,
            processor,
            picture,
            QUESTION,
            SETTINGS,
            progress=False,
            watch=lambda run: ends.append(time.perf_counter()),
        )
    seconds = [end - begin for begin, end in zip([started, *ends], ends, strict=False)]
    with torch.device("meta"):
        state = MedVForMaskedDiffusion(model.config).state_dict()
    shapes = {key: tuple(weight.shape) for key, weight in state.items()}
    inputs = processor([picture], [QUESTION])
    positions = sum(layout.num_positions for layout in inputs["tile_layouts"])
    return {
        "precision": precision,
        "machine": machine,
        "parameters": sum(map(math.prod, shapes.values())),
        "weights": count_bytes(shapes, model.dtype.itemsize, precision if is_coarse else None),
        "load": loading,
        "answer": {
            "seconds": ends[-1] - started,
            "resident": peak.resident,
            "private": peak.private,
        },
        "prompt": inputs["input_ids"].shape[1] - 1 + positions,
        "passes": len(seconds),
        "seconds_first_pass": seconds[0],
        "seconds_later_pass": median(seconds[1:]),
        "manifest": manifest,
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, memory and device of a run, and how many processes wanted a core just before it.

    No name of a host is among them.
    """
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "bfloat16": has_bfloat16(device),
        "busy": psutil.getloadavg()[0],
    }


def _processor_name() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
