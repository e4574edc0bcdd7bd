"""Parity of the input embeddings: prompts with images of one tile and of many, padded batches, truncation."""

import numpy as np
import torch

from tests.parity.golden import cases, close, kinds, load_arrays, load_json, make_tiles, require, tiny_model

KINDS = kinds("splice_") or ["splice_56"]


def used_images(ids, image_token):
    """Which recorded images have a placeholder (in the reference a row without one holds an unused image)."""
    counts = (ids == image_token).sum(dim=1).tolist()
    return [is_used for count in counts for is_used in ([True] * count or [False])]


def processed_images(settings, config, used):
    """Pixel tensors and layouts of the images that have a placeholder."""
    mode = settings.get("processed_as", settings["image_aspect_ratio"])
    images = [image for image, is_used in zip(settings["images"], used, strict=True) if is_used]
    pairs = [make_tiles(image, mode, config) for image in images]
    return [pixels for pixels, _ in pairs], [layout for _, layout in pairs]


def merge_case(kind, case):
    require("weights_check")
    recorded = load_json(kind)
    settings = recorded["cases"][case]
    arrays = {n.removeprefix(f"{case}."): a for n, a in load_arrays(kind).items() if n.startswith(f"{case}.")}
    model = tiny_model(
        recorded["geometry"],
        load_json("weights_check")["seed"],
        image_aspect_ratio=settings["image_aspect_ratio"],
        mm_patch_merge_type=settings["mm_patch_merge_type"],
        tokenizer_model_max_length=settings["tokenizer_model_max_length"],
    )
    ids = torch.from_numpy(np.atleast_2d(arrays["input_ids"]))
    used = used_images(ids, model.config.image_token_index)
    pixels, layouts = processed_images(settings, model.config, used)
    given = {
        name: torch.from_numpy(arrays[f"{name}_in"])
        for name in ("attention_mask", "labels")
        if f"{name}_in" in arrays
    }
    with torch.no_grad():
        merged = model.merge_image_features(ids, pixels, tile_layouts=layouts, **given)
    return settings, arrays, pixels, used, merged


@cases(*KINDS)
def test_inputs_embeds(kind, case):
    settings, arrays, _, _, merged = merge_case(kind, case)
    embeds = merged.inputs_embeds
    assert embeds.shape[1] == settings["sequence_length"]
    if "inputs_embeds" in arrays:
        close(embeds, arrays["inputs_embeds"], "hidden")
    else:
        close(embeds[:, ::3], arrays["inputs_embeds_stride3"], "hidden")
        sums = embeds.double().sum(dim=1).numpy()
        limit = 5e-5 * embeds.shape[1] ** 0.5  # rounding errors of single positions are independent
        np.testing.assert_allclose(sums, arrays["inputs_embeds_column_sums"], rtol=0, atol=limit)
    for name in ("attention_mask", "labels"):
        if f"{name}_out" in arrays:
            np.testing.assert_array_equal(getattr(merged, name).numpy(), arrays[f"{name}_out"])


@cases(*KINDS)
def test_tiles(kind, case):
    settings, arrays, pixels, used, _ = merge_case(kind, case)
    shapes = [shape for shape, is_used in zip(settings["pixel_values_shapes"], used, strict=True) if is_used]
    for number, (tiles, shape) in enumerate(zip(pixels, shapes, strict=True)):
        assert list(tiles.shape) == (shape if len(shape) == 4 else [1, *shape])
        if f"pixel_values_{number}" in arrays:
            close(tiles, arrays[f"pixel_values_{number}"], "pixels")
        if f"pixel_values_tile_means_{number}" in arrays:
            close(tiles.double().mean(dim=(2, 3)), arrays[f"pixel_values_tile_means_{number}"], "pixels")
