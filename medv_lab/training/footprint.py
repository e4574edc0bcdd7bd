"""Parameters and memory that a recipe takes at full size, counted without any weights.

Only what is kept between steps is counted (weights, gradients, optimiser), shared out evenly; activations, gathered
layers and buffers come on top. Bytes per parameter with bf16 computation and AdamW:

- ZeRO-3 (Rajbhandari et al., arXiv 1910.02054): bf16 weight 2 and bf16 gradient 2, and in the optimiser an fp32
  copy of the weight 4 and two moments 4 + 4.
- FSDP2 as accelerate sets it up: a weight that learns is kept in fp32, 4, with its gradient 4; two moments 4 + 4.

A frozen weight is kept in bf16, 2, under both.
"""

import pandas as pd
import torch

from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.training.recipes import PARTS, PUBLISHED, Recipe
from medv_lab.training.trainer import add_adapters, freeze_all_but

FROZEN_BYTES = 2


KEPT = pd.DataFrame({"weights": [2, 4], "gradients": [2, 4], "optimizer": [12, 8]}, index=["ZeRO-3", "FSDP2"])
"""Bytes kept per parameter that learns, by engine."""


def count_parameters(recipe: Recipe) -> pd.DataFrame:
    """Count parameters of the published 8B model by part. Adapters belong to the adapted part.

    Returns:
        Columns "trainable" and "frozen", index the parts.
    """
    with torch.device("meta"):
        model = MedVForMaskedDiffusion(MedVConfig())
        freeze_all_but(model, recipe.parts)
        if recipe.lora is not None:
            add_adapters(model, recipe.lora)
    rows = {}
    for part, parameters in model.parts().items():
        learns = sum(p.numel() for p in parameters.values() if p.requires_grad)
        rows[part] = {"trainable": learns, "frozen": sum(p.numel() for p in parameters.values()) - learns}
    return pd.DataFrame.from_dict(rows, orient="index").loc[list(PARTS)]


def plan_memory(counts: pd.DataFrame, processes: int) -> pd.DataFrame:
    """Compute the bytes that every GPU keeps.

    Args:
        counts: as `count_parameters` gives them.
        processes: GPUs that share everything out evenly.

    Returns:
        Columns "weights", "gradients", "optimizer", "total", index the engines.

    Raises:
        ValueError: for less than one GPU.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; give at least 1 GPU")
    learns, frozen = int(counts["trainable"].sum()), int(counts["frozen"].sum())
    table = KEPT * learns
    table["weights"] += FROZEN_BYTES * frozen
    return table.assign(total=table.sum(axis=1)) / processes


def plan_stages(processes: int) -> pd.DataFrame:
    """Tabulate stages: steps, parameters by part, and bytes per GPU of the optimiser and in all; one row per stage."""
    rows = {}
    for name, recipe in PUBLISHED.items():
        counts = count_parameters(recipe)
        row = {"steps": recipe.count_steps()}
        for part in PARTS:
            row |= {f"{part} trainable": counts["trainable"][part], f"{part} frozen": counts["frozen"][part]}
        for engine, memory in plan_memory(counts, processes).iterrows():
            row |= {f"{engine} optimizer": memory["optimizer"], f"{engine} total": memory["total"]}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")
