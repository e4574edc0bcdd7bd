"""Stages train what they name and nothing else; a run that is cut off goes on as if it had not been."""

from dataclasses import replace

import pytest
import torch
from medv_lab.training.noise import NoiseSource
from medv_lab.training.resuming import PARTIAL, find_checkpoint
from safetensors.torch import load_file, save_file

from medv_lab.diffusion.forward import ForwardNoise
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.training.embedded import Budget, Builder
from medv_lab.training.examples import Collator, ExampleDataset, caption_examples
from medv_lab.training.recipes import LoRA, Recipe
from medv_lab.training.trainer import (
    LENGTH_STEP,
    Engine,
    EpochOrder,
    MaskedDiffusionTrainer,
    freeze_all_but,
    run_stage,
)
from tests.model.tiny import tiny_model, tiny_tokenizer

BOTH = {"projector_lr": 1e-3, "language_tower_lr": 1e-3}
RECIPE = Recipe("test", **BOTH, batch_size=4, steps=2, max_length=512, precision="fp32")
SAVING = Engine(save_steps=2, log_steps=1)


class Interrupted(Exception):
    """Stands for whatever ends a run."""


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Budget(scenes=20), tmp_path, lambda line: None)


def data(tokenizer, patches: int, width: int) -> tuple[ExampleDataset, Collator]:
    features = torch.randn(20, patches, width, generator=torch.Generator().manual_seed(1)).half()
    dataset = ExampleDataset(caption_examples(make_scenes("train", 20), 0), tokenizer, 0)
    return dataset, Collator(tokenizer.eos_token_id, features)


def train(builder: Builder, recipe: Recipe) -> None:
    dataset, collator = data(builder.tokenizer, 36, 192)
    run_stage(builder.model, recipe, dataset, collator, seed=3, folder=builder.folder, log=lambda line: None)


def train_tiny(folder, recipe=RECIPE, model=None, **settings):
    """Train the tiny model; returns it and its history."""
    model = tiny_model() if model is None else model
    dataset, collator = data(tiny_tokenizer(), 16, 8)
    settings = {"seed": 3, "folder": folder, "log": lambda line: None} | settings
    return model, run_stage(model, recipe, dataset, collator, **settings)


def state(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed_parts(model, before) -> set[str]:
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    return {part for part, own in model.parts().items() if changed & own.keys()}


def are_equal(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("rates", "learn"),
    [
        ({"projector_lr": 1e-3}, {"projector"}),
        (BOTH, {"projector", "language_tower"}),
        (BOTH | {"vision_tower_lr": 1e-3}, {"projector", "language_tower", "vision_tower"}),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_changes_its_parts_alone(tmp_path, rates, learn, precision):
    model = tiny_model()
    before = state(model)
    dataset, _ = data(tiny_tokenizer(), 16, 8)
    pixels = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    padded = Collator(tiny_tokenizer().eos_token_id, torch.zeros(20, 1, 1))

    def collate(items):
        batch = padded(items)
        del batch["vision_features"]
        return batch | {"pixel_values": pixels[[item["scene"] for item in items]]}

    recipe = Recipe("test", **rates, batch_size=4, steps=2, precision=precision)
    run_stage(model, recipe, dataset, collate, seed=3, folder=tmp_path, log=lambda line: None)
    assert changed_parts(model, before) == learn
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_every_part_has_its_own_learning_rate(tmp_path):
    before = tiny_model()
    recipe = replace(RECIPE, steps=1, projector_lr=1e-2, language_tower_lr=1e-4, schedule="constant")
    after, _ = train_tiny(tmp_path, recipe)
    for part, rate in recipe.learning_rates.items():
        pairs = zip(after.parts()[part].values(), before.parts()[part].values(), strict=True)
        moved = max((one - two).abs().max().item() for one, two in pairs)
        assert moved <= rate * 1.01  # AdamW's first step is the learning rate, whatever the gradient
        assert moved >= rate * 0.5, part


def test_batches_hold_dialogues_of_like_length_in_random_order():
    draws = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 400, (1003,), generator=draws).tolist()
    order = list(EpochOrder(1003, lengths, 8, draws))
    assert sorted(order) == list(range(1003))
    batches = [order[start : start + 8] for start in range(0, 1000, 8)]
    steps = [{lengths[index] // LENGTH_STEP for index in batch} for batch in batches]
    assert sum(len(found) == 1 for found in steps) > 100  # of 125; the others are where two lengths meet
    firsts = [min(found) for found in steps[:50]]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)


def test_the_same_seed_gives_the_same_weights(tmp_path):
    results = []
    for name in "ab":
        builder = Builder(Budget(scenes=20), tmp_path / name, lambda line: None)
        train(builder, replace(RECIPE, projector_lr=None))
        results.append(builder.model.state_dict())
    assert are_equal(*results)


def test_a_loss_that_is_not_finite_ends_the_run(builder):
    with torch.no_grad():
        builder.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        train(builder, RECIPE)


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="no part head; the parts are vision_tower, projector"):
        freeze_all_but(tiny_model(), ("head",))


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="multiple of 3"):
        train_tiny(tmp_path, engine=Engine(accumulation=3))


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, alpha=4)])
@pytest.mark.parametrize("at", [3, 5, 9])  # in the first epoch of five steps, at its end, in the second
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(tmp_path, monkeypatch, at, lora):
    recipe = replace(RECIPE, steps=10, lora=lora)
    engine = replace(SAVING, save_steps=2 if at != 5 else 5)
    whole, history = train_tiny(tmp_path / "whole", recipe, engine=engine)

    step = MaskedDiffusionTrainer.training_step

    def cut_off(self, *args, **kwargs):
        if self.state.global_step == at:
            raise Interrupted
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedDiffusionTrainer, "training_step", cut_off)
        with pytest.raises(Interrupted):
            train_tiny(tmp_path / "cut", recipe, engine=engine)
    torch.manual_seed(99)  # nothing may hang on torch's own generator
    resumed, went_on = train_tiny(tmp_path / "cut", recipe, engine=engine, resume=True)
    assert are_equal(whole.state_dict(), resumed.state_dict())
    assert went_on["loss"].tolist() == history["loss"].tolist()


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path, monkeypatch):
    def die(*args):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("medv_lab.training.trainer.save_generator", die)
        with pytest.raises(Interrupted):
            train_tiny(tmp_path, engine=SAVING)
    assert (tmp_path / PARTIAL / "checkpoint-2" / "model.safetensors").is_file()
    assert find_checkpoint(tmp_path) is None
    train_tiny(tmp_path, engine=SAVING, resume=True)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not list((tmp_path / PARTIAL).glob("*"))


def test_only_the_newest_checkpoints_are_kept_and_none_holds_the_arguments_as_a_pickle(tmp_path):
    train_tiny(tmp_path, replace(RECIPE, steps=6), engine=SAVING)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    assert not list(tmp_path.rglob("training_args.bin"))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code of a checkpoint was run",))

    recipe = replace(RECIPE, steps=4)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        folder = tmp_path / name.partition(".")[0]
        train_tiny(folder, replace(recipe, steps=2), engine=SAVING)
        torch.save({"state": Bomb()}, folder / "checkpoint-2" / name)
        with pytest.raises(Exception, match="Weights only load failed"):
            train_tiny(folder, recipe, engine=SAVING, resume=True)


def test_the_masks_follow_the_saved_generator(tmp_path):
    recipe = replace(RECIPE, steps=4)
    whole, _ = train_tiny(tmp_path / "whole", recipe, engine=SAVING)
    train_tiny(tmp_path / "other", recipe, engine=SAVING)
    checkpoint = tmp_path / "other" / "checkpoint-2" / "generator.safetensors"
    states = load_file(checkpoint)
    save_file(states | {"now": torch.Generator().manual_seed(5).get_state()}, checkpoint)
    (tmp_path / "other" / "checkpoint-4").rename(tmp_path / "last")
    resumed, _ = train_tiny(tmp_path / "other", recipe, engine=SAVING, resume=True)
    assert not are_equal(whole.state_dict(), resumed.state_dict())


def test_recomputing_activations_changes_nothing(tmp_path):
    plain, losses = train_tiny(tmp_path / "a", engine=Engine(log_steps=1))
    again, same = train_tiny(tmp_path / "b", engine=Engine(gradient_checkpointing=True, log_steps=1))
    assert all(layer.gradient_checkpointing for layer in again.model.layers)
    assert not any(layer.gradient_checkpointing for layer in plain.model.layers)
    assert losses["loss"].tolist() == same["loss"].tolist()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_accumulated_batches_are_one_step_on_their_mean(tmp_path, monkeypatch):
    def mask_all(self, labels):
        ones = torch.ones(len(labels))
        return ForwardNoise(ones, ones, labels != self.ignore_index)

    monkeypatch.setattr(NoiseSource, "__call__", mask_all)
    whole, losses = train_tiny(tmp_path / "a", engine=Engine(log_steps=1))
    parts, means = train_tiny(tmp_path / "b", engine=Engine(accumulation=2, log_steps=1))
    torch.testing.assert_close(losses["loss"].tolist(), means["loss"].tolist(), rtol=1e-5, atol=0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, parts.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_adapters_learn_and_are_merged(tmp_path):
    before = state(tiny_model())
    model, _ = train_tiny(tmp_path, replace(RECIPE, lora=LoRA(rank=2, alpha=4)))
    assert changed_parts(model, before) == {"projector", "language_tower"}
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert model.state_dict().keys() == before.keys()
    assert all("mm_projector" in name or "_proj." in name for name in changed)


def test_the_losses_can_be_watched(tmp_path):
    seen = []
    _, history = train_tiny(tmp_path, engine=Engine(log_steps=1), watch=seen.append)
    assert [len(frame) for frame in seen] == [1, 2]
    assert seen[-1].equals(history)
    assert (history["loss"] > 0).all()
