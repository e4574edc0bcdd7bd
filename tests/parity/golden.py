"""The recorded reference numbers, and the tiny model that they were recorded on.

The folder is named by `MEDV_GOLDEN_DIR` (default `tests/golden`). Its README gives the layout and the weights
rule. Nothing here assumes one particular recording: sizes, seeds, case names and counts come from the files.
"""

import functools
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version
from PIL import Image
from PIL import __version__ as pillow
from safetensors.numpy import load_file

from medv_lab.inputs.tiling import TileLayout, cut_tiles, plan_tiles
from medv_lab.model import MedVConfig, MedVForMaskedDiffusion

TOLERANCE = {
    "pixels": 1e-6,
    "hidden": 5e-5,
    "logits": 2e-4,
    "confidence": 5e-5,
    "loss": 1e-4,
    "gradient": 1e-4,
}
VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."


def golden_dir() -> Path:
    """The folder with the recorded numbers."""
    return Path(os.environ.get("MEDV_GOLDEN_DIR") or Path(__file__).parents[1] / "golden")


def require(kind: str) -> None:
    """Skip the calling test, by name, if the folder has no `kind.json`."""
    if not (golden_dir() / f"{kind}.json").is_file():
        pytest.skip(f"the golden folder has no {kind}.json")


def kinds(prefix: str) -> list[str]:
    """The recorded kinds that start with `prefix`, e.g. `vision_56` and `vision_384` for `vision_`."""
    return sorted(path.stem for path in golden_dir().glob(f"{prefix}*.json"))


@functools.cache
def load_json(kind: str) -> Any:
    """The settings and small results of one kind of recording (do not change what is returned)."""
    return json.loads((golden_dir() / f"{kind}.json").read_text(encoding="utf-8"))


@functools.cache
def load_arrays(kind: str) -> dict[str, np.ndarray]:
    """The arrays of one kind of recording, by name (do not change them); skips the test if there are none."""
    path = golden_dir() / f"{kind}.safetensors"
    if not path.is_file():
        pytest.skip(f"the golden folder has no {path.name}")
    return load_file(path)


def case_names(*names: str, key: str = "cases") -> list[tuple[str, str]]:
    """All (kind, case) of the kinds that are there: the parameters of a test, read from the folder."""
    there = [kind for kind in names if (golden_dir() / f"{kind}.json").is_file()]
    return [(kind, case) for kind in there for case in load_json(kind)[key]]


def cases(*names: str, key: str = "cases") -> Any:
    """`pytest.mark.parametrize` over (kind, case); an absent kind stays visible as a skip with its name."""
    found = [pytest.param(kind, case, id=f"{kind}-{case}") for kind, case in case_names(*names, key=key)]
    absent = [name for name in names if not (golden_dir() / f"{name}.json").is_file()]
    skips = [
        pytest.param(
            name,
            "",
            id=f"{name}-absent",
            marks=pytest.mark.skip(reason=f"the golden folder has no {name}.json"),
        )
        for name in absent
    ]
    return pytest.mark.parametrize(("kind", "case"), found + skips)


def make_image(width: int, height: int, image_seed: int) -> np.ndarray:
    """The test image of the README: uint8 (height, width, 3)."""
    if height > width and Version(pillow) < Version("13"):
        pytest.skip("recorded with Pillow 13; older ones resize upright pictures to other bytes")
    noise = np.random.RandomState(image_seed).randint(0, 64, size=(height, width, 3))
    x = np.arange(width)[None, :, None]
    y = np.arange(height)[:, None, None]
    c = np.arange(3)[None, None, :]
    return ((7 * x * (c + 1) + 5 * y * (3 - c) + (x * y) // (8 + c) + noise) % 256).astype(np.uint8)


def make_tiles(
    image: dict[str, int], aspect_ratio: str, config: MedVConfig
) -> tuple[torch.Tensor, TileLayout]:
    """Pixel values (tiles, 3, side, side) and layout of a recorded image, given by its width, height and image_seed."""
    picture = Image.fromarray(make_image(image["width"], image["height"], image["image_seed"]))
    layout = plan_tiles(
        picture.size,
        aspect_ratio=aspect_ratio,
        merge_type=config.mm_patch_merge_type,
        tile_size=config.vision_config.image_size,
        patch_size=config.vision_config.patch_size,
        pinpoints=config.image_grid_pinpoints,
    )
    return torch.from_numpy(cut_tiles(picture, layout)), layout


def make_weight(name: str, shape: tuple[int, ...], seed: int, hidden_size: int) -> np.ndarray:
    """One weight of the tiny model by the rule of the README, float32."""
    random = np.random.RandomState((zlib.crc32(name.encode("utf-8")) ^ seed) & 0xFFFFFFFF)
    normal = random.standard_normal(shape).astype(np.float32)
    mean, std = 0.0, 0.0
    if name.endswith(".bias"):
        std = 0.1
    elif name == "model.image_newline":
        std = 0.5
    elif name == "model.embed_tokens.weight":
        std = 0.8
    elif name.endswith("position_embedding.weight"):
        std = 0.5
    elif len(shape) == 1:
        mean, std = 1.0, 0.1
    elif name == "lm_head.weight":
        std = 4 / np.sqrt(hidden_size)
    else:
        std = 1 / np.sqrt(np.prod(shape[1:]))
    return normal * np.float32(std) + np.float32(mean)


def tiny_config(geometry: int, **overrides: Any) -> MedVConfig:
    """The configuration of the recorded tiny model with image side `geometry`."""
    require("weights_check")
    recorded = load_json("weights_check")
    sizes, shapes = recorded["config"]["llm"], recorded["weights"]
    vision = {
        "image_size": geometry,
        "patch_size": shapes[f"{VISION_PREFIX}embeddings.patch_embedding.weight"]["shape"][-1],
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh",
        **recorded["config"]["vis"],
    }
    settings = {
        "vocab_size": shapes["model.embed_tokens.weight"]["shape"][0],
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 16384,
        "mm_hidden_size": vision["hidden_size"],
        "vision_config": vision,
        **sizes,
    }
    return MedVConfig(**{**settings, **overrides})


def recorded_geometry() -> int:
    """The image side that `weights_check.json` was recorded with, up to pixels that fill no patch."""
    shapes = load_json("weights_check")["weights"]
    patch = shapes[f"{VISION_PREFIX}embeddings.patch_embedding.weight"]["shape"][-1]
    return math.isqrt(shapes[f"{VISION_PREFIX}embeddings.position_embedding.weight"]["shape"][0]) * patch


@functools.cache
def _tiny_weights(geometry: int, seed: int) -> dict[str, torch.Tensor]:
    config = tiny_config(geometry)
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in MedVForMaskedDiffusion(config).state_dict().items()}
    return {
        name: torch.from_numpy(make_weight(name, shape, seed, config.hidden_size))
        for name, shape in shapes.items()
    }


def tiny_model(
    geometry: int,
    seed: int,
    vocab_size: int | None = None,
    lm_head_row_scales: dict[str, float] | None = None,
    **overrides: Any,
) -> MedVForMaskedDiffusion:
    """The recorded tiny model in fp32 on the CPU, in evaluation mode; a fresh copy at each call.

    Args:
        geometry: image side in pixels.
        seed: the weights' seed, as recorded (`weights_check.json`, or the kind's own `seed`).
        vocab_size: cut the embedding and the head to this many rows, as a loader does for a shorter
            tokenizer.
        lm_head_row_scales: factors of rows of the head, by token id.
        overrides: other settings of `MedVConfig`.
    """
    weights = dict(_tiny_weights(geometry, seed))
    if lm_head_row_scales:
        weights["lm_head.weight"] = weights["lm_head.weight"].clone()
        for token, factor in lm_head_row_scales.items():
            weights["lm_head.weight"][int(token)] *= factor
    if vocab_size is not None:
        for name in ("lm_head.weight", "model.embed_tokens.weight"):
            weights[name] = weights[name][:vocab_size]
        overrides["vocab_size"] = vocab_size
    model = MedVForMaskedDiffusion(tiny_config(geometry, **overrides))
    model.load_state_dict(weights, strict=True)
    return model.eval()


def close(actual: Any, expected: np.ndarray, quantity: str) -> None:
    """Assert that `actual` equals the recorded `expected` up to the README's limit for this quantity."""
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    assert actual.shape == expected.shape, f"shape {actual.shape}, recorded {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[quantity])
