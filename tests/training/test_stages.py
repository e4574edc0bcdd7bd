"""Stages of a list are trained once; what a killed run left is gone on with; a folder belongs to one run."""

import multiprocessing
import threading
from dataclasses import replace

import pytest
import torch

from medv_lab.store import ExclusiveAccess, InUseError
from medv_lab.training.callbacks import find_checkpoint
from medv_lab.training.stages import CHECKPOINTS, Stage, StageRunner, TensorCache, claim_folder
from medv_lab.training.trainer import Engine
from tests.model.tiny import tiny_model
from tests.training.test_trainer import RECIPE, are_equal, data

STAGES = [Stage(name, f"key-{name}", replace(RECIPE, steps=4), data) for name in ("one", "two", "three")]


def train(folder, stages=STAGES, **settings):
    """Train the tiny model; returns its weights and the names of the stages that were trained."""
    runner = StageRunner(folder, engine=Engine(save_steps=2, log_steps=1), log=lambda line: None)
    model, trained = tiny_model(), []
    runner.train(model, stages, seed=3, after_stage=lambda stage: trained.append(stage.name), **settings)
    return model.state_dict(), trained


def test_a_list_is_trained_once_and_lists_share_their_beginning(tmp_path):
    whole, trained = train(tmp_path)
    assert trained == ["one", "two", "three"]
    again, trained = train(tmp_path)
    assert are_equal(again, whole) and trained == []
    other = replace(STAGES[2], key="key-other", recipe=replace(RECIPE, steps=1))
    branched, trained = train(tmp_path, [*STAGES[:2], other])
    assert trained == ["three"]
    assert not are_equal(branched, whole)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == sorted(
        f"key-{name}.safetensors" for name in ("one", "two", "three", "other")
    )


def test_fresh_trains_all_to_the_same_weights(tmp_path):
    whole, _ = train(tmp_path)
    again, trained = train(tmp_path, fresh=True)
    assert trained == ["one", "two", "three"]
    assert are_equal(again, whole)


def test_a_list_that_was_cut_off_goes_on_within_its_stage(tmp_path, cut_off):
    whole, _ = train(tmp_path / "whole")
    steps = cut_off(8)  # the last of the second stage
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    assert find_checkpoint(tmp_path / "cut" / "key-two").name == "checkpoint-2"
    resumed, trained = train(tmp_path / "cut")
    assert trained == ["two", "three"]
    assert steps[8] == 2
    assert are_equal(resumed, whole)
    assert not (tmp_path / "cut" / "key-two").exists()


def test_tensors_are_made_once_and_never_half_there(tmp_path):
    cache = TensorCache(tmp_path / "new")
    assert "a" not in cache
    cache.compute("a", lambda: {"x": torch.ones(3)})
    assert torch.equal(cache.compute("a", pytest.fail)["x"], torch.ones(3))
    assert [path.name for path in cache.folder.iterdir() if path.suffix != ".lock"] == ["a.safetensors"]


def _save_again_and_again(folder, number):
    for _ in range(20):
        TensorCache(folder).save("a", {"x": torch.full((1000,), float(number))})


def test_processes_may_write_the_same_tensors_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_save_again_and_again, args=(tmp_path, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(set(TensorCache(tmp_path).load("a")["x"].tolist())) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stage_in_work_elsewhere_is_not_trained_twice_and_what_was_trained_before_is_kept(tmp_path):
    with ExclusiveAccess(tmp_path, "key-two"), pytest.raises(InUseError, match="key-two"):
        train(tmp_path)
    whole, trained = train(tmp_path)
    assert trained == ["two", "three"]
    assert are_equal(whole, train(tmp_path / "alone")[0])


def test_a_stage_that_was_finished_elsewhere_meanwhile_is_taken(tmp_path):
    def meanwhile():  # while stage one is trained here, another process finishes both
        train(tmp_path / "other", STAGES[:2])
        (tmp_path / "other" / "key-two.safetensors").rename(tmp_path / "key-two.safetensors")
        return data()

    own, trained = train(tmp_path, [replace(STAGES[0], load_data=meanwhile), *STAGES[1:]])
    assert trained == ["one", "three"]
    assert are_equal(own, train(tmp_path / "alone")[0])


def test_tensors_in_work_elsewhere_are_waited_for(tmp_path):
    started = threading.Event()

    def slowly():
        started.set()
        return {"x": torch.ones(3)}

    cache = TensorCache(tmp_path)
    with ExclusiveAccess(tmp_path, "a"):
        other = threading.Thread(target=lambda: TensorCache(tmp_path).compute("a", slowly))
        other.start()
        assert not started.wait(0.2)
        cache.save("a", {"x": torch.zeros(3)})
    other.join()
    assert not started.is_set()
    assert torch.equal(cache.load("a")["x"], torch.zeros(3))


def test_a_folder_is_claimed_by_one_run(tmp_path):
    claim_folder(tmp_path, {"seed": 0}, resume=False)
    claim_folder(tmp_path, {"seed": 0}, resume=True)
    with pytest.raises(ValueError, match="different are seed"):
        claim_folder(tmp_path, {"seed": 1}, resume=True)
    (tmp_path / CHECKPOINTS / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(ValueError, match="resume it"):
        claim_folder(tmp_path, {"seed": 0}, resume=False)
