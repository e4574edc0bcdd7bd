"""Parity of the image path: preprocessing, vision tower, projector."""

import hashlib

import numpy as np
import pytest
import torch

from tests.parity.golden import (
    cases,
    close,
    kinds,
    load_arrays,
    load_json,
    make_image,
    make_tiles,
    require,
    tiny_config,
    tiny_model,
)

KINDS = kinds("vision_") or ["vision_56"]
modes = pytest.mark.parametrize("mode", ["square", "pad"])


def recorded_pixels(kind, case, mode):
    recorded = load_json(kind)
    if mode not in recorded["images"][case]:
        pytest.skip(f"{kind} has no {case}.{mode}")
    config = tiny_config(recorded["geometry"])
    return load_arrays(kind), make_tiles(recorded["images"][case], mode, config)[0]


@cases(*KINDS, key="images")
def test_raw_image(kind, case):
    image = load_json(kind)["images"][case]
    raw = make_image(image["width"], image["height"], image["image_seed"])
    assert hashlib.sha256(raw.tobytes()).hexdigest() == image["sha256_raw_uint8_HWC"]


@cases(*KINDS, key="images")
@modes
def test_preprocessing(kind, case, mode):
    arrays, pixels = recorded_pixels(kind, case, mode)
    expected = load_json(kind)["images"][case][mode]
    assert list(pixels.shape) == expected["pixel_values_shape"]
    resized = np.rint((pixels[0].numpy() * 0.5 + 0.5) * 255).astype(np.uint8)
    assert hashlib.sha256(resized.tobytes()).hexdigest() == expected["sha256_resized_uint8_CHW"]
    if f"{case}.{mode}.pixel_values" in arrays:
        close(pixels[0], arrays[f"{case}.{mode}.pixel_values"], "pixels")
    if f"{case}.{mode}.pixel_values_stride8" in arrays:
        close(pixels[0, :, ::8, ::8], arrays[f"{case}.{mode}.pixel_values_stride8"], "pixels")


@cases(*KINDS, key="images")
@modes
def test_tower_and_projector(kind, case, mode):
    arrays, pixels = recorded_pixels(kind, case, mode)
    wanted = {
        name.removeprefix(f"{case}.{mode}."): array
        for name, array in arrays.items()
        if name.startswith(f"{case}.{mode}.")
    }
    require("weights_check")
    model = tiny_model(load_json(kind)["geometry"], load_json("weights_check")["seed"])
    vision = model.model.vision_tower.vision_tower.vision_model
    computed = {}
    for number, layer in enumerate(vision.encoder.layers, start=1):
        layer.register_forward_hook(lambda *call, name=f"hidden_{number}": computed.update({name: call[2]}))
    vision.embeddings.register_forward_hook(lambda *call: computed.update(hidden_0=call[2]))
    with torch.no_grad():
        computed["tower_features"] = model.vision_features(pixels)
        computed["projected"] = model.model.mm_projector(computed["tower_features"])
    for name in wanted.keys() & {
        "tower_features",
        "projected",
        *(n for n in wanted if n.startswith("hidden_")),
    }:
        close(computed[name][0], wanted[name], "hidden")
