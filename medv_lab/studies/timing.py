"""The time of a step: the published loop, the exact sampler, its floor, and faster settings, side by side.

All take turns step by step, so that whatever slows a machine down slows all alike; ratios are made within a repeat and
reported as their median and range. The floor of a step is what no exact sampler that computes every position can
do without: one pass of the backbone over prompt and answer, and the output layer on the masked positions of the active
block. The split of a step is measured in a run of its own, since it needs a clock inside the step; what a step of any
sampler spends in the model is the floor of that sampler. So is memory, whose watching takes time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.decoding.denoising import suppressed_ids
from medv_lab.diffusion.reference import sample_reference
from medv_lab.diffusion.sampler import sample
from medv_lab.model.checkpoints import load
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene
from medv_lab.runtime import make_manifest, resolve_device

PARTS = ("backbone", "head", "sampler")
SAMPLERS = ("exact", "fast", "fast_batch")
WAYS = ("reference", "floor", *SAMPLERS)
BATCH = 8  # answers at a time of the fast settings; the published loop has one
WATCHED_STEPS = 2  # for memory: the first computes everything, the second what a cache leaves
_SMALL_VISION = {  # never run: prompts of random models are random vectors
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


@dataclass(frozen=True)
class Size:
    """A model to time, and the settings of the exact sampler and the published loop.

    Attributes:
        prompt: its length, of a model with random weights.
        config: sizes of a model with random weights; None for one that is loaded.
        model: which one is loaded, and asked to describe a phantom.
        needs_gpu: true where a CPU would take hours.
    """

    settings: GenerationSettings
    prompt: int = 0
    config: Mapping[str, int] | None = None
    needs_gpu: bool = False
    model: str = "embedded"


SIZES = {
    "embedded": Size(GenerationSettings(gen_length=128, block_length=32, steps=128)),
    "mid": Size(
        GenerationSettings(gen_length=64, block_length=32, steps=64),
        prompt=128,
        config={
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
        },
    ),
    "8b": Size(PRESETS["paper-open-ended"], prompt=1000, config={}, needs_gpu=True),
}
# a checkpoint folder's: the published loop takes the whole vocabulary at every position of prompt and answer in float64
FOLDER_SETTINGS = GenerationSettings(gen_length=32, block_length=32, steps=32)


@dataclass(frozen=True)
class Subject:
    """A model with a prompt (1, P, H), and what the sampler must be told of it."""

    model: MedVForMaskedDiffusion
    prefix_embeds: torch.Tensor
    known: Mapping[str, Any]


@torch.no_grad()
def make_subject(size: Size, device: str = "auto", dtype: str = "auto") -> Subject:
    """Load or make the model of a size, with its prompt.

    Raises:
        ValueError: for a size that needs a GPU on a machine without one.
    """
    placement = resolve_device(device, dtype)
    if size.needs_gpu and placement.device.type != "cuda":
        raise ValueError(
            f"this size needs a CUDA device, and the run is on {placement.device}; take 'mid' or 'embedded'"
        )
    if size.config is None:
        model, processor = load(size.model, device=device, dtype=dtype)
        if size.model != "embedded":
            processor.image_aspect_ratio = "square"  # one tile: the published loop needs the memory
        inputs = processor([render(make_scene("test", 0))], ["Describe the image."])
        inputs.pop("attention_mask")  # one prompt, nothing is padded
        ids = inputs.pop("input_ids").to(placement.device)
        prefix = model.merge_image_features(ids, padding_side="left", **inputs).inputs_embeds
    else:
        config = MedVConfig(**size.config, vision_config=_SMALL_VISION)
        torch.manual_seed(0)
        with placement.device:
            default = torch.get_default_dtype()
            torch.set_default_dtype(placement.dtype)
            try:
                model = MedVForMaskedDiffusion(config).eval()
            finally:
                torch.set_default_dtype(default)
        ids = torch.randint(0, 1000, (1, size.prompt), device=placement.device)
        prefix = model.embed_tokens(ids)
    suppressed = suppressed_ids(model, size.settings)
    return Subject(model, prefix, {"mask_token_id": model.config.mask_token_id, "suppressed": suppressed})


def fast_settings(settings: GenerationSettings) -> GenerationSettings:
    """Return the preset `fast` at other lengths, with a fixed quarter of the passes.

    The preset takes about that many by itself on the embedded model (results/studies/frontier). How sure a model is
    decides it, and random weights are sure of nothing.
    """
    blocks, steps = settings.num_blocks, settings.L // 4
    return replace(settings, cache=PRESETS["fast"].cache, steps=max(1, steps // blocks) * blocks)


def sampler_settings(settings: GenerationSettings) -> dict[str, tuple[GenerationSettings, int]]:
    """Return the settings of each of SAMPLERS, and how many answers it makes at a time."""
    fast = fast_settings(settings)
    return {
        "exact": (settings, 1),
        "fast": (fast, 1),
        "fast_batch": (fast, BATCH),
    }


def run_benchmark(subject: Subject, settings: GenerationSettings, repeats: int = 3) -> dict[str, Any]:
    """Measure, after one step of each way to warm up.

    Returns:
        JSON-able: `ratio_NAME_vs_reference` of each of SAMPLERS (seconds per answer, reference / other; `BATCH` answers
        at a time in `fast_batch`) and `overhead_fraction` ((step - floor) / floor of the exact sampler), each a median
        over repeats with `..._range`; `seconds_per_step` by way and by part of an exact step, `seconds_per_answer`,
        `passes`, `model_seconds_per_step` (in backbone and head), `peak_memory` (bytes of tensors, weights left out),
        `same_tokens` (whether published loop and exact sampler gave the same answer), settings and manifest.

    Raises:
        ValueError: for fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; give 1 or more")
    samplers = sampler_settings(settings)
    _measure_steps(subject, settings, limit=settings.steps // samplers["fast"][0].steps)
    runs = [
        _measure_steps(subject, settings)
        | {"parts": {name: _measure_parts(subject, *one) for name, one in samplers.items()}}
        for _ in range(repeats)
    ]
    seconds = {way: np.array([sum(run[way]) for run in runs]) for way in WAYS}
    seconds["fast_batch"] /= BATCH
    ratios = {f"ratio_{name}_vs_reference": seconds["reference"] / seconds[name] for name in SAMPLERS}
    ratios["overhead_fraction"] = seconds["exact"] / seconds["floor"] - 1
    result: dict[str, Any] = {}
    for name, values in ratios.items():
        result[name] = float(np.median(values))
        result[f"{name}_range"] = [float(values.min()), float(values.max())]
    passes = {way: len(runs[0][way]) for way in WAYS}
    per_answer = {way: float(np.median(seconds[way])) for way in WAYS}
    per_step = {way: per_answer[way] / passes[way] for way in WAYS}
    parts = {
        name: {part: float(np.median([run["parts"][name][part] for run in runs])) for part in PARTS}
        for name in SAMPLERS
    }
    per_step |= parts["exact"]
    device = subject.model.device
    return result | {
        "seconds_per_step": per_step,
        "seconds_per_answer": per_answer,
        "passes": passes,
        "model_seconds_per_step": {name: one["backbone"] + one["head"] for name, one in parts.items()},
        "peak_memory": _measure_memory(subject, settings),
        "same_tokens": all(run["same_tokens"] for run in runs),
        "repeats": repeats,
        "batch": BATCH,
        "prompt": subject.prefix_embeds.shape[1],
        "threads": torch.get_num_threads(),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "fast_settings": samplers["fast"][0].to_dict(),
        "manifest": make_manifest(settings.to_dict(), seed=settings.seed, model=subject.model),
    }


def _start_runs(subject: Subject, settings: GenerationSettings) -> dict[str, tuple[int, Iterator[Any]]]:
    """Return the steps of the published loop and of each of SAMPLERS, and its run."""
    prefix, known = subject.prefix_embeds, subject.known
    runs: dict[str, tuple[int, Iterator[Any]]] = {
        "reference": (settings.steps, sample_reference(subject.model, prefix, settings, **known))
    }
    for name, (own, batch) in sampler_settings(settings).items():
        many = prefix.repeat(batch, 1, 1)
        is_image = torch.zeros(many.shape[:2], dtype=torch.bool)
        runs[name] = own.steps, sample(subject.model, many, own, is_image=is_image, **known)
    return runs


def _measure_steps(
    subject: Subject, settings: GenerationSettings, limit: int | None = None
) -> dict[str, Any]:
    """Time each step of every way, which take turns; those of fewer steps have theirs spread over the turns."""
    clock, prefix = device_clock(subject.model.device), subject.prefix_embeds
    whole = prefix.shape[1] + settings.gen_length
    embeds = prefix.new_zeros(1, whole, prefix.shape[2]).normal_()
    runs = _start_runs(subject, settings)
    seconds: dict[str, list[float]] = {way: [] for way in (*runs, "floor")}
    last: dict[str, Any] = {}
    for turn in range(limit or settings.steps):
        for way, (steps, run) in runs.items():
            if (turn + 1) * steps // settings.steps == turn * steps // settings.steps:
                continue
            started = clock()
            result = next(run, None)
            spent = clock() - started
            if result is None:  # a full block ends early
                continue
            seconds[way].append(spent)
            last[way] = result
            if way == "exact":
                started = clock()
                with torch.no_grad():
                    subject.model.head(subject.model.backbone(embeds)[0, -len(result.candidate_rows) :])
                seconds["floor"].append(clock() - started)
    same = bool(np.array_equal(last["reference"].cpu().numpy(), last["exact"].canvas[0]))
    return {**seconds, "same_tokens": same}


def _measure_memory(subject: Subject, settings: GenerationSettings) -> dict[str, int]:
    """Return by how many bytes the first steps of the published loop and of each of SAMPLERS raise memory, at most."""
    device, found = subject.model.device, {}
    for way, (_, run) in _start_runs(subject, settings).items():
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            list(islice(run, WATCHED_STEPS))
            found[way] = torch.cuda.max_memory_allocated(device) - before
            continue
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
            list(islice(run, WATCHED_STEPS))
        events = [one for one in watch.profiler.kineto_results.events() if one.name() == "[memory]"]
        events.sort(key=lambda one: one.start_ns())
        found[way] = int(np.cumsum([one.nbytes() for one in events]).max())
    return found


def _measure_parts(subject: Subject, settings: GenerationSettings, batch: int) -> dict[str, float]:
    """Return the mean seconds per step and answer that a sampler spends in backbone, head, and elsewhere."""
    timed = _TimedDenoiser(subject.model)
    started = timed.clock()
    records = list(sample(timed, subject.prefix_embeds.repeat(batch, 1, 1), settings, **subject.known))
    whole = timed.clock() - started
    parts = timed.seconds | {"sampler": whole - sum(timed.seconds.values())}
    return {part: spent / len(records) / batch for part, spent in parts.items()}


class _TimedDenoiser:
    """A model that counts the seconds spent in its backbone and its head."""

    def __init__(self, model: MedVForMaskedDiffusion):
        self.clock, self.seconds = device_clock(model.device), {"backbone": 0.0, "head": 0.0}
        self.embed_tokens = model.embed_tokens
        self.backbone, self.head = self._timed("backbone", model.backbone), self._timed("head", model.head)

    def _timed(self, part: str, run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def timed(*inputs: Any, **named: Any) -> torch.Tensor:
            started = self.clock()
            result = run(*inputs, **named)
            self.seconds[part] += self.clock() - started
            return result

        return timed


def device_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock of wall time that waits until the device has done what it was given."""
    if device.type != "cuda":
        return time.perf_counter

    def finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return finished
