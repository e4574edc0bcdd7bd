"""Parity of the exact sampler: every recorded pass, commit, token and confidence."""

import re

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.sampler import sample
from tests.parity.golden import cases, close, kinds, load_arrays, load_json, make_pixels, tiny_model

# `cache` is the feature cache of a published demo, which is another sampler.
KINDS = [kind for kind in kinds("generation_") if kind != "generation_cache"]
SUPPRESSED = (126081, 126080, 126346, 126347)


def model_of(kind: str, case: str):
    recorded = load_json(kind)
    settings = recorded["cases"][case]
    cut = re.search(r"first (\d+) rows", settings.get("note", ""))
    overrides = {
        name: settings[key]
        for name, key in (("image_aspect_ratio",) * 2, ("mm_patch_merge_type",) * 2)
        if key in settings
    }
    return tiny_model(
        recorded["geometry"],
        recorded["seed"],
        vocab_size=int(cut.group(1)) if cut else None,
        lm_head_row_scales=settings.get("lm_head_row_scales"),
        **overrides,
    )


def run(kind: str, case: str, batch: int = 1):
    """All step records of a recorded case, as `batch` equal rows."""
    recorded = load_json(kind)["cases"][case]
    model = model_of(kind, case)
    ids = torch.tensor([recorded["prompt_ids"]])
    images = recorded.get("images", [])
    pixels = [make_pixels(image, recorded["image_aspect_ratio"], model.config) for image in images]
    with torch.no_grad():
        spliced = model.splice(
            ids,
            pixels or None,
            image_sizes=[(image["width"], image["height"]) for image in images] or None,
            labels=ids,
        )
    assert spliced.inputs_embeds.shape[1] == recorded["prompt_length_in_embeddings"]
    settings = GenerationSettings(
        gen_length=recorded["gen_length"],
        block_length=recorded["block_length"],
        steps=recorded["steps"],
        temperature=recorded["temperature"],
        cfg_scale=recorded["cfg_scale"],
        seed=recorded.get("torch_seed", 0),
        noise="reference",
    )
    return list(
        sample(
            model,
            spliced.inputs_embeds.expand(batch, -1, -1),
            settings,
            mask_token_id=model.config.mask_token_id,
            suppressed=SUPPRESSED,
            prompt_masked=(spliced.labels == model.config.mask_token_id).expand(batch, -1),
            stop_ids=recorded.get("stop_token_id_sequences", []),
            suffix_ids=recorded.get("suffix_token_ids", []),
        )
    )


def answer(record, row: int, suffix: list[int]) -> list[int]:
    return record.canvas[row, : record.stops[row]].tolist() + suffix


@cases(*KINDS)
def test_generation(kind, case):
    recorded = load_json(kind)["cases"][case]
    records = run(kind, case)
    suffix = recorded.get("suffix_token_ids", [])
    assert len(records) == recorded["forward_passes"]
    assert answer(records[-1], 0, suffix) == recorded["output_ids"]
    is_found = bool(records[-1].stops[0] < recorded["gen_length"])
    assert is_found == recorded["stop_found"]
    if is_found:
        assert records[-1].stops[0] == recorded["stop_position"]
    for record, expected in zip(records, recorded["steps_record"], strict=True):
        assert (record.block, record.step, int(record.quota[0])) == (
            expected["block"],
            expected["step"],
            expected["k"],
        )
        assert len(record.candidate_positions) == expected["candidates"]
        commits = [commit for commit in expected["commits"] if commit[2] is not None]
        assert record.positions.tolist() == [commit[0] for commit in commits]
        assert record.tokens.tolist() == [commit[1] for commit in commits]
        close(record.confidence, np.array([commit[2] for commit in commits]), "confidence")


@cases(*KINDS)
def test_candidates_of_every_pass(kind, case):
    arrays = load_arrays(kind)
    records = run(kind, case)
    for number, record in enumerate(records):
        is_answer = record.candidate_positions >= 0
        places = record.candidate_positions[is_answer]
        expected = arrays[f"{case}.confidence"][number]
        assert np.flatnonzero(np.isfinite(expected)).tolist() == places.tolist()
        close(record.candidate_confidence[is_answer], expected[places], "confidence")
        assert record.candidate_tokens[is_answer].tolist() == arrays[f"{case}.x0"][number][places].tolist()


@cases(*KINDS)
def test_a_batch_of_equal_rows_is_one_row_repeated(kind, case):
    recorded = load_json(kind)["cases"][case]
    # The long prompts would take seconds more and show nothing new.
    batch = 1 if recorded["prompt_length_in_embeddings"] > 200 else 2
    last = run(kind, case, batch)[-1]
    suffix = recorded.get("suffix_token_ids", [])
    assert all(answer(last, row, suffix) == recorded["output_ids"] for row in range(batch))
