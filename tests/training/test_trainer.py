"""Stages train what they name and nothing else, deterministically, with levels drawn from every part of [0, 1]."""

import pytest
import torch

from medv_lab.data.scenes import make_scenes
from medv_lab.training.embedded import Budget, Builder
from medv_lab.training.examples import Collator, ExampleDataset, caption_examples
from medv_lab.training.trainer import T_MIN, Stage, freeze_all_but, run_stage, stratified_levels


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Budget(scenes=20), tmp_path, lambda line: None)


def train(builder: Builder, parts: tuple[str, ...], log=lambda line: None) -> None:
    features = torch.randn(20, 36, 192, generator=torch.Generator().manual_seed(1)).half()
    dataset = ExampleDataset(caption_examples(make_scenes("train", 20), 0), builder.tokenizer, 0)
    collator = Collator(builder.tokenizer.eos_token_id, features)
    stage = Stage("test", parts, 2, 4, 1e-3)
    run_stage(builder.model, stage, dataset, collator, seed=3, folder=builder.folder, log=log)


def state(builder: Builder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in builder.model.state_dict().items()}


@pytest.mark.parametrize("parts", [("projector",), ("projector", "language_tower")])
def test_a_stage_changes_its_parts_alone(builder, parts):
    before = state(builder)
    train(builder, parts)
    changed = {
        name for name, value in builder.model.state_dict().items() if not torch.equal(value, before[name])
    }
    own = {name for part in parts for name in builder.model.parts()[part]}
    assert changed
    assert changed <= own
    assert all(parameter.requires_grad for parameter in builder.model.parameters())
    assert not builder.model.training


def test_the_same_seed_gives_the_same_weights(tmp_path):
    results = []
    for name in "ab":
        builder = Builder(Budget(scenes=20), tmp_path / name, lambda line: None)
        train(builder, ("language_tower",))
        results.append(builder.model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_a_loss_that_is_not_finite_ends_the_run(builder):
    with torch.no_grad():
        builder.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        train(builder, ("projector",))


def test_levels_cover_every_part_once():
    torch.manual_seed(0)
    levels = stratified_levels(64)
    strata = ((levels - T_MIN) / (1 - T_MIN) * 64).floor().int()
    assert sorted(strata.tolist()) == list(range(64))
    assert levels.tolist() != sorted(levels.tolist())


def test_an_unknown_part_is_refused(builder):
    with pytest.raises(ValueError, match="no part head; the parts are vision_tower, projector"):
        freeze_all_but(builder.model, ("head",))
