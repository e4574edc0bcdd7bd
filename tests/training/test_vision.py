"""Statements about pictures, the loss that compares them, and that an image tower learns from it."""

import numpy as np
import pytest
import torch

from medv_lab.phantoms.scenes import CELLS, DOMAINS, Finding, Scene, make_scenes
from medv_lab.training.embedded import learn_tokenizer, make_model, make_processor
from medv_lab.training.vision import (
    STATEMENTS,
    Statement,
    cosine,
    pretrain_vision_tower,
    render_all,
    to_pixels,
    truth_loss,
)

SCENE = Scene("brain mri", (Finding("tumour", "left", "upper", "large"),), 0)


def test_statements_differ_in_words_and_each_can_be_true():
    assert len({statement.text() for statement in STATEMENTS}) == len(STATEMENTS)
    scenes = make_scenes("train", 3000)
    assert all(any(statement.holds(scene) for scene in scenes) for statement in STATEMENTS)
    assert sum(bool(statement.side and statement.zone) for statement in STATEMENTS) == len(DOMAINS) * len(
        CELLS
    )


@pytest.mark.parametrize(
    ("statement", "is_true"),
    [
        (Statement("brain mri"), True),
        (Statement("histology"), False),
        (Statement("brain mri", "tumour", side="left"), True),
        (Statement("brain mri", "tumour", side="right"), False),
        (Statement("brain mri", grade="large"), True),
        (Statement("brain mri", is_normal=True), False),
    ],
)
def test_a_statement_holds_where_it_is_true(statement, is_true):
    assert statement.holds(SCENE) is is_true


def test_a_normal_picture_is_normal_and_of_its_domain_alone():
    normal = Scene("brain mri", (), 0)
    held = [statement for statement in STATEMENTS if statement.holds(normal)]
    assert held == [Statement("brain mri"), Statement("brain mri", is_normal=True)]


def test_the_loss_weighs_both_sides_alike_and_skips_what_is_not_counted():
    truth = torch.tensor([[True, True], [False, True], [False, True]])
    counted = torch.ones_like(truth)
    logits = torch.tensor([[2.0, -9.0], [1.0, -9.0], [-1.0, -9.0]])
    softplus = torch.nn.functional.softplus
    expected = 0.5 * softplus(torch.tensor(-2.0)) + 0.25 * (
        softplus(torch.tensor(1.0)) + softplus(torch.tensor(-1.0))
    )
    assert truth_loss(logits, truth, counted).item() == pytest.approx(expected.item())  # text 1 tells nothing
    counted[1, 0] = False
    fewer = 0.5 * softplus(torch.tensor(-2.0)) + 0.5 * softplus(torch.tensor(-1.0))
    assert truth_loss(logits, truth, counted).item() == pytest.approx(fewer.item())


def test_pixels_are_what_the_processor_makes():
    scenes = make_scenes("train", 20)
    tokenizer = learn_tokenizer(scenes, 0)
    processor = make_processor(tokenizer, make_model(tokenizer, 0).config)
    images = render_all(scenes[:3])
    for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        prepared = processor(image, "What?")["pixel_values"][0]
        torch.testing.assert_close(prepared, to_pixels(images[number : number + 1]))


def test_the_learning_rate_rises_and_falls_to_zero():
    factors = [cosine(step, 100, warmup=0.05) for step in range(100)]
    assert np.argmax(factors) in (4, 5)
    assert factors[-1] < 0.01
    assert all(0 < factor <= 1 for factor in factors)


def test_the_same_seed_gives_the_same_tower():
    scenes = make_scenes("train", 40)
    tokenizer, images, lines = learn_tokenizer(scenes, 0), render_all(scenes), []
    towers = [
        pretrain_vision_tower(scenes, images, tokenizer, steps=3, batch_size=8, log=lines.append)
        for _ in range(2)
    ]
    for one, other in zip(towers[0].state_dict().values(), towers[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_was_cut_off_goes_on_to_the_same_tower(tmp_path, monkeypatch):
    scenes = make_scenes("train", 40)
    tokenizer, images = learn_tokenizer(scenes, 0), render_all(scenes)
    monkeypatch.setattr("medv_lab.training.vision.SAVE_STEPS", 2)

    def train(folder, log=lambda line: None):
        settings = {"steps": 5, "batch_size": 8, "checkpoints": folder, "log": log}
        return pretrain_vision_tower(scenes, images, tokenizer, **settings)

    whole, losses = train(None), []

    def die(*args):
        losses.append(None)
        if len(losses) == 4:
            raise KeyboardInterrupt
        return truth_loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("medv_lab.training.vision.truth_loss", die)
        train(tmp_path)
    lines = []
    resumed = train(tmp_path, lines.append)
    assert lines == ["vision: goes on after step 2"]
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_text_tower_and_the_heads_learn_too():
    scenes = make_scenes("train", 40)
    tokenizer, images = learn_tokenizer(scenes, 0), render_all(scenes)
    one, two = (
        pretrain_vision_tower(scenes, images, tokenizer, steps=steps, batch_size=8).state_dict()
        for steps in (1, 2)
    )
    still = {name for name, value in one.items() if torch.equal(value, two[name])}
    assert all(name.endswith("position_ids") or "k_proj.bias" in name for name in still), still
