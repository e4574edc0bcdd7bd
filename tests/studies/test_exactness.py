"""The report of two ways to run a model: nothing where they are the same, and what was planted where they are not."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.generation import generate
from medv_lab.studies.exactness import CACHES, WAYS, exactness_report, run_exactness
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=8, block_length=4, steps=8)
QUESTIONS = ["What?", "Is there a nodule in the left lung?", "Yes or no?"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(initializer_range=0.4)


@pytest.fixture(scope="module")
def inputs():
    random = np.random.RandomState(0)
    pictures = [Image.fromarray(random.randint(0, 256, (30, 40, 3)).astype(np.uint8)) for _ in range(2)]
    return tiny_processor()([pictures[0], None, pictures[1]], QUESTIONS, gen_length=8)


def test_the_same_way_twice_shows_no_difference(model, inputs):
    report = exactness_report(model, inputs, SETTINGS, SETTINGS)
    assert report.different.tolist() == [0] * 3
    assert report.largest_drift.tolist() == report.mean_drift.tolist() == [0.0] * 3
    assert report.first_position.tolist() == report.first_pass.tolist() == [-1] * 3
    assert report.compared_passes.tolist() == report.passes_a.tolist() == report.passes_b.tolist() == [8] * 3


@pytest.mark.parametrize(
    "ways", [{"batch_sizes": (1, 3)}, {"backends": ("sdpa", "eager")}, {"batch_sizes": (2, None)}], ids=str
)
def test_batches_and_backends_differ_by_rounding_only(model, inputs, ways):
    backend = model.config._attn_implementation
    guided = replace(SETTINGS, cfg_scale=0.5)
    report = exactness_report(model, inputs, guided, guided, **ways)
    assert report.different.tolist() == [0] * 3
    assert (report.largest_drift < 1e-3).all()
    assert (report.largest_drift >= report.mean_drift).all()
    assert model.config._attn_implementation == backend


def test_a_dtype_drifts_and_leaves_the_model_as_it_was(model, inputs):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = exactness_report(model, inputs, SETTINGS, SETTINGS, dtypes=(torch.float32, torch.bfloat16))
    assert (report.largest_drift > 1e-3).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("cache", ["prefix", "dual", "image"])
def test_a_cache_drifts_from_the_second_pass_on(model, inputs, cache):
    report = exactness_report(model, inputs, SETTINGS, replace(SETTINGS, cache=cache))
    assert report.largest_drift.max() > 1e-3
    brief = replace(SETTINGS, steps=2)
    only_first = exactness_report(model, inputs, brief, replace(brief, cache=cache))
    assert only_first.largest_drift.max() < 1e-4  # each block has one pass, and that computes everything


def test_answers_that_differ_are_counted_from_where_and_when_they_do(model, inputs):
    said = {int(token) for answer in generate(model, **inputs, settings=SETTINGS) for token in answer}
    others = replace(SETTINGS, suppressed_tokens=tuple(sorted(said)))
    wanted = exactness_report(model, inputs, SETTINGS, others)
    assert (wanted.different == wanted.positions).all()
    assert wanted.first_pass.tolist() == [0] * 3
    assert wanted.compared_passes.tolist() == [1] * 3
    assert wanted.first_position.tolist() == [0] * 3


def test_what_cannot_be_compared_is_refused(model, inputs):
    with pytest.raises(ValueError, match="gen_length is 8 and 12"):
        exactness_report(model, inputs, SETTINGS, replace(SETTINGS, gen_length=12, steps=12))


def test_every_way_is_compared_for_every_prompt(tmp_path):
    scores = run_exactness(tiny_model(), tiny_processor(), tmp_path, questions=2)
    assert list(dict.fromkeys(scores.comparison)) == [*WAYS, *CACHES]
    assert scores.groupby("comparison").prompt.apply(list).tolist() == [[0, 1]] * (len(WAYS) + len(CACHES))
    stored = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(stored, scores, check_dtype=False, rtol=1e-4)
    refreshed = scores[scores.comparison == "no cache, dual cache always refreshed"]
    assert (refreshed.different == 0).all()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["settings"]["questions"] == 2 and manifest["versions"]


def test_a_run_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    whole = run_exactness(tiny_model(), tiny_processor(), tmp_path / "whole", questions=2)
    compared, cut = [], 3

    def compare(*given, **way):
        if len(compared) == cut:
            raise KeyboardInterrupt
        compared.append(way)
        return exactness_report(*given, **way)

    monkeypatch.setattr("medv_lab.studies.exactness.exactness_report", compare)
    with pytest.raises(KeyboardInterrupt):
        run_exactness(tiny_model(), tiny_processor(), tmp_path / "cut", questions=2)
    assert not (tmp_path / "cut" / "scores.csv").exists()
    cut = None
    scores = run_exactness(tiny_model(), tiny_processor(), tmp_path / "cut", questions=2)
    assert len(compared) == len(WAYS) + len(CACHES)  # none of them twice
    pd.testing.assert_frame_equal(scores, whole, check_dtype=False)

    # nor is what another commit computed taken for this one's
    monkeypatch.setattr("medv_lab.runtime._checkout_state", lambda: ("another", False))
    run_exactness(tiny_model(), tiny_processor(), tmp_path / "cut", questions=2)
    assert len(compared) == 2 * (len(WAYS) + len(CACHES))
