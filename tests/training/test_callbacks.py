"""A run that is cut off goes on as if it had not been; a checkpoint is whole or not there, and runs no code."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from medv_lab.training.callbacks import LENGTH_STEP, PARTIAL, EpochOrder, find_checkpoint
from medv_lab.training.recipes import LoRA
from medv_lab.training.trainer import Engine
from tests.training.test_trainer import RECIPE, are_equal, train_tiny

SAVING = Engine(save_steps=2, log_steps=1)


def test_batches_hold_dialogues_of_like_length_in_random_order():
    draws = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 400, (1003,), generator=draws).tolist()
    epoch = EpochOrder(1003, lengths, 8, draws)
    epoch.draw()
    order = list(epoch)
    assert sorted(order) == list(range(1003))
    batches = [order[start : start + 8] for start in range(0, 1000, 8)]
    steps = [{lengths[index] // LENGTH_STEP for index in batch} for batch in batches]
    assert sum(len(found) == 1 for found in steps) > 100  # of 125; the others are where two lengths meet
    firsts = [min(found) for found in steps[:50]]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)


@pytest.mark.parametrize("changes", [{}, {"lora": LoRA(rank=2, alpha=4)}, {"muon_lr": 0.01}])
@pytest.mark.parametrize("at", [3, 5, 9])  # in the first epoch of five steps, at its end, in the second
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(tmp_path, cut_off, at, changes):
    recipe = replace(RECIPE, steps=10, **changes)
    engine = replace(SAVING, save_steps=2 if at != 5 else 5)
    whole, history = train_tiny(tmp_path / "whole", recipe, engine=engine)
    cut_off(at + 1)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "cut", recipe, engine=engine)
    torch.manual_seed(99)  # nothing may hang on torch's own generator
    resumed, went_on = train_tiny(tmp_path / "cut", recipe, engine=engine, resume=True)
    assert are_equal(whole.state_dict(), resumed.state_dict())
    assert went_on["loss"].tolist() == history["loss"].tolist()


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medv_lab.training.callbacks.save_file", die)
        with pytest.raises(KeyboardInterrupt):
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


def test_the_losses_can_be_watched(tmp_path):
    seen = []
    _, history = train_tiny(tmp_path, engine=Engine(log_steps=1), watch=seen.append)
    assert [len(frame) for frame in seen] == [1, 2]
    assert seen[-1].equals(history)
    assert (history["loss"] > 0).all()
