"""How far ways of running lie apart on the embedded model, as a results folder: batch, backend, dtype and caches.

The folder has scores.csv, one row a prompt and comparison with the columns of `exactness_report`, and manifest.json.
"""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from medv_lab.config import DualCache, GenerationSettings, ImageCache, PrefixCache
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.runtime import make_manifest
from medv_lab.store import replace_text
from medv_lab.studies.exactness import exactness_report

QUESTION = "Describe the image."
BASE = GenerationSettings(gen_length=32, block_length=16, steps=16)
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


def run_exactness(
    model: MedVForMaskedDiffusion, processor: MedVProcessor, folder: Path, questions: int = 8
) -> pd.DataFrame:
    """Compare every way with the plain one, and write the results folder.

    Args:
        model, processor: who answers.
        folder: of results.
        questions: the first so many phantoms of the test split are described.

    Returns:
        What scores.csv holds.
    """
    pictures = [render(scene) for scene in make_scenes("test", questions)]
    inputs = processor(pictures, [QUESTION] * questions)
    reports = {name: exactness_report(model, inputs, BASE, BASE, **way) for name, way in WAYS.items()}
    for name, cache in CACHES.items():
        reports[name] = exactness_report(model, inputs, BASE, replace(BASE, cache=cache))
    scores = pd.concat(
        [report.assign(comparison=name, prompt=range(questions)) for name, report in reports.items()],
        ignore_index=True,
    )
    manifest = make_manifest({"questions": questions, **BASE.to_dict()}, seed=BASE.seed, model=model)
    replace_text(folder / "scores.csv", scores.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    replace_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return scores
