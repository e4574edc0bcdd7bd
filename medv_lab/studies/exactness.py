"""How far ways of running the same prompts lie apart: cache, strategy, batch size, attention backend, dtype.

`exactness_report` compares any two ways. `run_exactness` compares the plain one with others on descriptions of phantoms
and writes a results folder: scores.csv, one row per prompt and comparison with the columns of the report, and
manifest.json. What was compared is kept in its store, so a run that was cut off goes on.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from medv_lab.config import DualCache, GenerationSettings, ImageCache, PrefixCache
from medv_lab.decoding.denoising import describe_prompts, suppressed_ids
from medv_lab.diffusion.sampler import sample
from medv_lab.evaluation.responders import describe_model
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.model.quantization import describe_quantization, make_quantization_config
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.runtime import make_manifest
from medv_lab.store import Store, content_key, replace_text

QUESTION = "Describe the image."
BASE = GenerationSettings(gen_length=32, block_length=16, steps=16)
# Ways of running the same settings, and caches beside none.
WAYS = {
    "batch 1, batch 8": {"batch_sizes": (1, 8)},
    "sdpa, eager": {"backends": ("sdpa", "eager")},
    "float32, bfloat16": {"dtypes": (torch.float32, torch.bfloat16)},
}
CACHES = {
    "no cache, prefix cache": PrefixCache(),
    "no cache, dual cache": DualCache(),
    "no cache, dual cache always refreshed": DualCache(refresh=1),
    "no cache, image cache": ImageCache(),
}


@torch.no_grad()
def exactness_report(
    model: MedVForMaskedDiffusion,
    inputs: Mapping[str, Any],
    settings_a: GenerationSettings,
    settings_b: GenerationSettings,
    *,
    batch_sizes: tuple[int | None, int | None] = (None, None),
    backends: tuple[str | None, str | None] = (None, None),
    dtypes: tuple[torch.dtype | None, torch.dtype | None] = (None, None),
    other: MedVForMaskedDiffusion | None = None,
) -> pd.DataFrame:
    """Run prompts in two ways, and compare tokens and logits.

    The logits are those of the masked positions, after guidance. They are compared over the passes before which both
    answers were the same, so that what is measured is the way of computing and not another answer. All of one way are
    kept on the host until the other has run: passes x masked positions x vocabulary x 4 bytes per prompt.

    Args:
        model: stays as it is; another dtype is run on a copy.
        inputs: what the processor gives: `input_ids`, `attention_mask`, images.
        settings_a, settings_b: of the two ways; of the same gen_length.
        batch_sizes: prompts at a time; None for all.
        backends, dtypes: attention implementations, and dtypes of the weights; None for the model's own.
        other: runs the second way, instead of the model.

    Returns:
        One row per prompt: `positions` (of the longer answer, before its stop), `different` (how many tokens differ;
        one that only one answer has differs), `first_position` and `first_pass` (where and when they first differ; -1
        if nowhere), `compared_passes`, `largest_drift` and `mean_drift` (absolute differences of logits),
        `passes_a`, `passes_b`.

    Raises:
        ValueError: for other gen_lengths.
    """
    if settings_a.gen_length != settings_b.gen_length:
        raise ValueError(
            f"gen_length is {settings_a.gen_length} and {settings_b.gen_length}; answers of one length can be compared"
        )
    ways = []
    for network, settings, size, backend, dtype in zip(
        (model, other or model), (settings_a, settings_b), batch_sizes, backends, dtypes, strict=True
    ):
        with _varied(network, backend, dtype) as varied:
            ways.append(_run(varied, inputs, settings, size))
    return pd.DataFrame([_compare(one, other) for one, other in zip(*ways, strict=True)])


def run_exactness(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    folder: Path,
    questions: int = 8,
    quantizations: Sequence[str] = (),
) -> pd.DataFrame:
    """Compare every way with the plain one on the first phantoms of the test split, and write the results folder.

    Args:
        model, processor: from `load`.
        folder: for the results.
        questions: phantoms.
        quantizations: "int8", "int4": the model is loaded again in these and in bfloat16, and each is compared with
            bfloat16 in place of all other ways.

    Returns:
        What scores.csv holds.
    """
    pictures = [render(scene) for scene in make_scenes("test", questions)]
    inputs = processor(pictures, [QUESTION] * questions)
    if quantizations:
        comparisons = _list_quantised(model, inputs, quantizations)
    else:
        comparisons = {
            name: partial(exactness_report, model, inputs, BASE, BASE, **way) for name, way in WAYS.items()
        }
        for name, kind in CACHES.items():
            other = replace(BASE, cache=kind)
            comparisons[name] = partial(exactness_report, model, inputs, BASE, other)
    settings = {"questions": questions, "quantizations": list(quantizations), **BASE.to_dict()}
    manifest = make_manifest(settings, seed=BASE.seed, model=model)
    # Rounding is another on another device or by other versions: what is kept is taken up where all that is the same.
    where = {name: value for name, value in manifest.items() if name not in ("created", "settings")}
    about, parts = (describe_model(model, "model"), where, BASE.to_dict(), questions), []
    with Store(folder, "rows") as store:
        for name, compare in comparisons.items():
            key = content_key(*about, name)
            if key not in store:
                store.put(key, {"report": compare().to_dict("list")})
            parts.append(pd.DataFrame(store[key]["report"]).assign(comparison=name, prompt=range(questions)))
    scores = pd.concat(parts, ignore_index=True)
    replace_text(folder / "scores.csv", scores.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    replace_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return scores


def _list_quantised(
    model: MedVForMaskedDiffusion, inputs: Mapping[str, Any], quantizations: Sequence[str]
) -> dict[str, Callable[[], pd.DataFrame]]:
    """List comparisons of the checkpoint in fewer bits with bfloat16; each loads the former, all share the latter."""
    loaded = partial(load, model.medv_source.folder, device=str(model.device), dtype="bfloat16")
    whole = cache(lambda: loaded()[0])

    def compare(name: str) -> pd.DataFrame:
        return exactness_report(whole(), inputs, BASE, BASE, other=loaded(quantization=name)[0])

    held = {name: make_quantization_config(name, model.device, torch.bfloat16) for name in quantizations}
    return {
        f"bfloat16, {describe_quantization(held[name])}": partial(compare, name) for name in quantizations
    }


class _Pass(NamedTuple):
    """A pass of one prompt: its candidates (N,), their logits (N, V), the answer after it, and where it ends."""

    positions: np.ndarray
    logits: torch.Tensor
    canvas: np.ndarray
    stop: int


class _Recorder:
    """A denoiser that keeps the logits of its head."""

    def __init__(self, denoiser: MedVForMaskedDiffusion):
        self.embed_tokens, self.backbone, self._head = denoiser.embed_tokens, denoiser.backbone, denoiser.head
        self.logits: list[torch.Tensor] = []

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self._head(hidden)
        self.logits.append(logits.float().cpu().clone())  # the sampler writes to what it is given
        return logits


@contextmanager
def _varied(
    model: MedVForMaskedDiffusion, backend: str | None, dtype: torch.dtype | None
) -> Iterator[MedVForMaskedDiffusion]:
    own = model.config._attn_implementation
    # another dtype and back would round the weights
    varied = model if dtype in (None, model.dtype) else copy.deepcopy(model).to(dtype)
    try:
        if backend is not None:
            varied.set_attn_implementation(backend)
        yield varied
    finally:
        if backend is not None:
            varied.set_attn_implementation(own)


def _run(
    model: MedVForMaskedDiffusion, inputs: Mapping[str, Any], settings: GenerationSettings, size: int | None
) -> list[list[_Pass]]:
    """Run the prompts, so many at a time, and return the passes of each."""
    ids = inputs["input_ids"].to(model.device)
    images = {name: part for name, part in inputs.items() if name not in ("input_ids", "attention_mask")}
    mask = inputs.get("attention_mask", torch.ones_like(ids)).to(model.device)
    merged = model.merge_image_features(ids, attention_mask=mask, labels=ids, padding_side="left", **images)
    known = describe_prompts(model, merged)
    of_rows = [name for name, value in known.items() if isinstance(value, torch.Tensor)]
    passes: list[list[_Pass]] = [[] for _ in ids]
    for start in range(0, len(ids), size or len(ids)):
        part = slice(start, start + (size or len(ids)))
        first = int(merged.attention_mask[part].any(0).long().argmax())  # padding of all rows is cut off
        recorder = _Recorder(model)
        prefix, suppressed = merged.inputs_embeds[part, first:], suppressed_ids(model, settings)
        told = known | {name: known[name][part, first:] for name in of_rows}
        for record in sample(recorder, prefix, settings, suppressed=suppressed, **told):
            logits = recorder.logits[0]
            if settings.cfg_scale > 0:
                logits = recorder.logits[1] + (settings.cfg_scale + 1) * (logits - recorder.logits[1])
            recorder.logits.clear()
            for row in np.flatnonzero(record.active):
                mine = record.candidate_rows == row
                own = logits[torch.from_numpy(mine)], record.canvas[row], int(record.stops[row])
                passes[start + row].append(_Pass(record.candidate_positions[mine], *own))
    return passes


def _compare(one: list[_Pass], other: list[_Pass]) -> dict[str, float]:
    drifts, first_pass = [], -1
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        _, at_a, at_b = np.intersect1d(a.positions, b.positions, return_indices=True)
        drifts.append((a.logits[torch.from_numpy(at_a)] - b.logits[torch.from_numpy(at_b)]).abs())
        if not np.array_equal(a.canvas, b.canvas):
            first_pass = number
            break
    end_a, end_b = one[-1].stop, other[-1].stop
    both, longer = min(end_a, end_b), max(end_a, end_b)
    is_different = one[-1].canvas[:longer] != other[-1].canvas[:longer]
    is_different[both:] = True
    drift = torch.cat([part.flatten() for part in drifts])
    return {
        "positions": longer,
        "different": int(is_different.sum()),
        "first_position": int(is_different.argmax()) if is_different.any() else -1,
        "first_pass": first_pass,
        "compared_passes": len(drifts),
        "largest_drift": float(drift.max()),
        "mean_drift": float(drift.double().mean()),
        "passes_a": len(one),
        "passes_b": len(other),
    }
