"""A stage on phantoms: killed at a random step and resumed, it ends in the weights of a run that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from medv_lab.training.phantom_runs import PhantomRun, default_recipe, train_on_phantoms
from medv_lab.training.resuming import find_checkpoint
from safetensors.torch import load_file

import medv_lab
from medv_lab.training.trainer import Engine
from tests.model.tiny import save_tiny

STEPS = 8
TRAIN = [
    *(sys.executable, "-m", "medv_lab", "train", "--stage", "instruct", "--scenes", "8", "--rounds", "1"),
    *("--set", "batch_size=4", "--set", f"steps={STEPS}", "--save-steps", "2", "--log-steps", "1"),
    *("--model", "embedded", "--output"),
]


def equal(one, two) -> bool:
    one, two = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small checkpoint whose pictures have the phantoms' size."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    save_tiny(folder, vision_config=vision | {"image_size": 72, "patch_size": 24})
    return folder


def make_run(start, **changes):
    recipe = replace(default_recipe("instruct"), batch_size=4, steps=STEPS)
    return replace(PhantomRun("instruct", recipe, str(start), scenes=8, question_rounds=1), **changes)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    """Of the embedded model itself, killed by the system while `medv train` runs."""
    engine = Engine(save_steps=2, log_steps=1)
    train_on_phantoms(make_run("embedded"), tmp_path / "whole", engine=engine, log=lambda line: None)
    killed_at = random.randint(1, STEPS - 1)
    command = [*TRAIN, str(tmp_path / "cut")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in process.stdout:
            if f" {killed_at}/{STEPS} " in line:
                break
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "manifest.json").exists()
    lines = []
    train_on_phantoms(make_run("embedded"), tmp_path / "cut", engine=engine, resume=True, log=lines.append)
    assert equal(tmp_path / "whole", tmp_path / "cut"), f"killed at {killed_at}"
    assert len(lines) <= STEPS - (killed_at - killed_at % 2 - 2), (
        "steps before the last checkpoint were run again"
    )


def test_the_result_is_a_checkpoint_that_answers(start, tmp_path):
    recipe = replace(default_recipe("alignment"), batch_size=4, steps=2)
    run = make_run(start, stage="alignment", recipe=recipe)
    train_on_phantoms(run, tmp_path / "out", engine=Engine(save_steps=1), log=lambda line: None)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    changed = {name for name, value in after.items() if not torch.equal(value.float(), before[name].float())}
    assert changed
    assert all(name.startswith("model.mm_projector.") for name in changed)
    model, _ = medv_lab.load(tmp_path / "out", device="cpu")
    assert model.config.hidden_size == 16
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["recipe"]["steps"] == 2


def test_a_folder_belongs_to_one_run(start, tmp_path):
    engine, run = Engine(save_steps=1), make_run(start)
    run = replace(run, recipe=replace(run.recipe, steps=1))
    settings = {"engine": engine, "log": lambda line: None}
    train_on_phantoms(run, tmp_path, **settings)
    assert find_checkpoint(tmp_path / "checkpoints").name == "checkpoint-1"
    with pytest.raises(ValueError, match="holds checkpoints of a run; resume it"):
        train_on_phantoms(run, tmp_path, **settings)
    with pytest.raises(ValueError, match="different are seed"):
        train_on_phantoms(replace(run, seed=1), tmp_path, resume=True, **settings)
    before = load_file(tmp_path / "model.safetensors")
    train_on_phantoms(run, tmp_path, resume=True, **settings)  # a run that has ended stays as it is
    assert all(
        torch.equal(value, before[n]) for n, value in load_file(tmp_path / "model.safetensors").items()
    )


def test_without_the_shipped_checkpoint_a_stage_starts_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr("medv_lab.training.phantom_runs.embedded_folder", lambda: tmp_path / "none")
    lines, run = [], make_run("embedded")
    run = replace(run, recipe=replace(run.recipe, steps=1))
    train_on_phantoms(run, tmp_path / "out", engine=Engine(save_steps=1), log=lines.append)
    assert "fresh weights" in lines[0]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="alignment, instruct, vqa"):
        default_recipe("text")
