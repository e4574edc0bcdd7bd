"""The measurement of lookahead counts what was run, compares the same answers, and leaves threads as they were."""

import pytest
import torch

from medv_lab.config import GenerationSettings
from medv_lab.decoding.denoising import suppressed_ids
from medv_lab.studies.speculation import measure_lookahead
from medv_lab.studies.timing import Subject
from tests.model.tiny import tiny_model


def test_every_block_and_depth_is_measured_against_no_lookahead():
    settings = GenerationSettings(gen_length=8, block_length=8, steps=8)
    model, threads = tiny_model(initializer_range=0.4), torch.get_num_threads()
    known = {"mask_token_id": model.config.mask_token_id, "suppressed": suppressed_ids(model, settings)}
    with torch.no_grad():
        subject = Subject(model, model.embed_tokens(torch.arange(5, 17)[None]), known)
    rows = measure_lookahead(subject, settings, (1, 3), repeats=2)
    assert torch.get_num_threads() == threads
    asked = [(t, block, depth) for t in sorted({1, threads}) for block in (4, 8) for depth in (1, 3)]
    assert [(row["threads"], row["block_length"], row["lookahead"]) for row in rows] == asked
    for row in rows:
        assert row["same_tokens"]
        assert row["passes"] == 8
        assert row["in_sequence"] <= 8 <= row["sequences"] <= row["in_sequence"] * (1 + row["lookahead"])
        low, high = row["speedup_range"]
        assert low <= row["speedup"] <= high
        assert row["speedup"] == pytest.approx((low + high) / 2)
