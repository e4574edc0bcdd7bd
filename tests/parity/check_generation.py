"""Parity of the exact sampler: every recorded pass, commit, token and confidence."""

import functools
import re

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.sampler import sample
from tests.parity.golden import cases, close, kinds, load_arrays, load_json, make_tiles, tiny_model

KNOWN = [f"generation_{name}" for name in ("main", "stops", "special", "edge", "full", "resized")]
# `cache` is the feature cache of a published demo, which is another sampler.
KINDS = [*KNOWN, *(kind for kind in kinds("generation_") if kind not in (*KNOWN, "generation_cache"))]
IMAGE = -200
SUPPRESSED = (126081, 126080, 126346, 126347)


def model_of(kind: str, case: str):
    recorded = load_json(kind)
    settings = recorded["cases"][case]
    cut = re.search(r"(?:first|cut_to_|cut to) ?(\d+)", f"{settings.get('note', '')} {case}")
    assert cut or kind != "generation_resized", (
        f"{kind} does not say how many rows are left of the vocabulary"
    )
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


@functools.cache
def run(kind: str, case: str):
    """All step records of a recorded case."""
    recorded = load_json(kind)["cases"][case]
    model = model_of(kind, case)
    prompt = merged(model, recorded, [recorded["prompt_ids"]])
    assert prompt.inputs_embeds.shape[1] == recorded["prompt_length_in_embeddings"]
    return records_of(model, recorded, prompt)


def merged(model, recorded, prompts: list[list[int]]):
    """Prompts, each with the case's images in it, padded on the left."""
    images = recorded.get("images", [])
    tiles = [make_tiles(image, recorded["image_aspect_ratio"], model.config) for image in images]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.no_grad():
        return model.merge_image_features(
            ids,
            [pixels for pixels, _ in tiles] * len(prompts) or None,
            tile_layouts=[layout for _, layout in tiles] * len(prompts) or None,
            attention_mask=None if bool(real.all()) else real,
            labels=ids,
            padding_side="left",
        )


def records_of(model, recorded, prompt):
    settings = GenerationSettings(
        gen_length=recorded["gen_length"],
        block_length=recorded["block_length"],
        steps=recorded["steps"],
        temperature=recorded["temperature"],
        cfg_scale=recorded["cfg_scale"],
        seed=recorded.get("torch_seed") or 0,
        noise="reference",
    )
    return list(
        sample(
            model,
            prompt.inputs_embeds,
            settings,
            mask_token_id=model.config.mask_token_id,
            suppressed=SUPPRESSED,
            attention_mask=prompt.attention_mask,
            prompt_masked=prompt.labels == model.config.mask_token_id,
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
        assert (record.block, record.step, int(record.num_transfer[0])) == (
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
    for number, record in enumerate(run(kind, case)):
        is_answer = record.candidate_positions >= 0
        places = record.candidate_positions[is_answer]
        expected = arrays[f"{case}.confidence"][number]
        assert np.flatnonzero(np.isfinite(expected)).tolist() == places.tolist()
        close(record.candidate_confidence[is_answer], expected[places], "confidence")
        assert record.candidate_tokens[is_answer].tolist() == arrays[f"{case}.x0"][number][places].tolist()


@cases(*KINDS)
def test_a_row_of_a_batch_is_filled_as_it_is_alone(kind, case):
    """The recorded prompt between a longer and a shorter one, so that it is padded and ends where others do not."""
    recorded = load_json(kind)["cases"][case]
    model, ids = model_of(kind, case), recorded["prompt_ids"]
    longer, shorter = [1, 2, *ids], [1, *[token for token in ids if token == IMAGE]]
    records = records_of(model, recorded, merged(model, recorded, [longer, ids, shorter]))
    alone = run(kind, case)
    own = [record for record in records if record.active[1]]
    suffix = recorded.get("suffix_token_ids", [])
    assert answer(records[-1], 1, suffix) == recorded["output_ids"]
    for record, expected in zip(own, alone, strict=True):
        mine = record.rows == 1
        assert record.positions[mine].tolist() == expected.positions.tolist()
        assert record.tokens[mine].tolist() == expected.tokens.tolist()
        close(record.confidence[mine], expected.confidence, "confidence")
        assert record.stops[1] == expected.stops[0]
