"""The whole pipeline on a budget of seconds: it trains, saves, loads and scores, and does so the same way twice."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import medv_lab
from medv_lab.config import PRESETS
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene, make_scenes
from medv_lab.runtime import resolve_precision
from medv_lab.training.embedded import (
    RECORDED,
    STAGES,
    learn_tokenizer,
    make_model,
    rebuild,
    take_vision_tower,
)
from medv_lab.training.recipes import Budget
from medv_lab.training.vision import VISION, frozen_features, pretrain_vision_tower, render_all, to_pixels
from tests.training.test_trainer import are_equal

TINY = Budget(scenes=100, question_rounds=2, vision_steps=2, score_rounds=1)
TINY = replace(TINY, **{name: replace(getattr(TINY, name), steps=1, batch_size=8) for name in STAGES})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two builds, the second of which is not scored."""
    lines, folders = [], [tmp_path_factory.mktemp("embedded") / name for name in ("one", "two")]
    rebuild(folders[0], budget=TINY, log=lines.append)
    with pytest.MonkeyPatch.context() as patched:
        leave_out_scores(patched)
        rebuild(folders[1], budget=TINY, log=lines.append)
    return folders, lines


def leave_out_scores(patched):
    """Most of a tiny build's time goes into them."""
    patched.setattr("medv_lab.training.embedded.SCORED", ())
    patched.setattr("medv_lab.training.embedded.score_model", lambda *args: pd.DataFrame())


def test_it_answers_after_loading(built):
    model, processor = medv_lab.load(built[0][0])
    answer = medv_lab.ask(
        model, processor, render(make_scene("test", 0)), "Is there a nodule?", PRESETS["embedded-vqa"]
    )
    assert answer.is_complete
    assert answer.manifest["model"]["sha256"] == model.medv_source.sha256


def test_the_same_seed_gives_the_same_weights(built):
    assert are_equal(*(load_file(folder / "model.safetensors") for folder in built[0]))


def test_the_tower_is_the_contrastively_trained_one_without_its_last_layer():
    scenes = make_scenes("train", TINY.scenes)
    tokenizer = learn_tokenizer(scenes, 0)
    model, images = make_model(tokenizer, 0), render_all(scenes)
    siglip = pretrain_vision_tower(scenes, images, tokenizer, steps=1, batch_size=8)
    take_vision_tower(model, siglip)
    features = frozen_features(model, images, batch=30)
    with torch.no_grad():
        siglip.vision_model.half().float()  # as it is saved
        states = siglip.vision_model(to_pixels(images), output_hidden_states=True).hidden_states
    assert features.shape == (100, 36, VISION["hidden_size"])
    torch.testing.assert_close(features.float(), states[-2], atol=2e-3, rtol=2e-3)


def test_scores_are_printed_for_every_split_and_the_manifest_tells_the_budget(built):
    folders, lines = built
    text = "\n".join(lines)
    for wanted in ("test split, pictures right", "test split, pictures shuffled", "compositional split"):
        assert wanted in text
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    assert manifest["settings"]["scenes"] == 100
    assert manifest["settings"]["instruct"]["steps"] == 1
    assert manifest["settings"]["instruct"]["precision"] == "auto"
    used = resolve_precision("auto", torch.device("cpu"))
    assert manifest["settings"]["precision"] == dict.fromkeys(("vision_tower", *STAGES), used)
    assert manifest["device"] == "cpu"


def test_the_same_is_asked_after_every_stage(built):
    record = json.loads((built[0][0] / "stages.json").read_text())
    assert [one["stage"] for one in record] == list(STAGES)
    assert all(one["answers"].keys() == RECORDED.keys() and one["steps"] == 1 for one in record)
    assert all(0 <= score <= 100 for one in record for score in one["validation"].values())
    assert {"closed all", "open all"} <= record[-1]["validation"].keys()


def test_a_build_that_was_cut_off_goes_on_to_the_same_weights(built, tmp_path, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    output, lines = tmp_path / "cut", []
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("medv_lab.training.embedded.score_model", die)  # after the first stage
        rebuild(output, budget=TINY, log=lines.append)
    with pytest.raises(ValueError, match="another run"):
        rebuild(output, budget=replace(TINY, seed=1), log=lines.append)
    leave_out_scores(monkeypatch)
    rebuild(output, budget=TINY, log=lines.append)
    assert any(line.startswith("text: weights taken from text-") for line in lines)
    assert are_equal(*(load_file(folder / "model.safetensors") for folder in (output, built[0][0])))
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_the_baseline_that_sees_no_picture_is_trained_too(tmp_path):
    lines = []
    rebuild(tmp_path / "blind", question_only=True, budget=TINY, log=lines.append)
    assert "test split, pictures none" in "\n".join(lines)
    assert not any(line.startswith(("vision", "alignment")) for line in lines)
