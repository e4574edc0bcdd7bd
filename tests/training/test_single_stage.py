"""A stage from a checkpoint, on phantoms and real data: a killed run ends in the weights of one left alone."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import medv_lab
from medv_lab.cli.main import app
from medv_lab.training.callbacks import find_checkpoint
from medv_lab.training.recipes import EMBEDDED, find_recipe
from medv_lab.training.single_stage import (
    PhantomRun,
    read_training_data,
    train_on_phantoms,
)
from medv_lab.training.trainer import Engine
from tests.data.released import make_slake, make_vqa_rad, real_folders, vqa_rad_row, write_json
from tests.training.test_trainer import are_equal

STEPS = 8
TRAIN = [
    *(sys.executable, "-m", "medv_lab", "train", "--stage", "instruct", "--scenes", "8", "--rounds", "1"),
    *("--set", "batch_size=4", "--set", f"steps={STEPS}", "--save-steps", "2", "--log-steps", "1"),
    *("--model", "embedded", "--output"),
]
BRIEFLY = ("--set", "steps=2", "--set", "batch_size=2", "--save-steps", "1", "--log-steps", "1")


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def make_run(start, **changes):
    recipe = replace(EMBEDDED["instruct"], batch_size=4, steps=STEPS)
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
    assert are_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut")), f"killed at {killed_at}"
    assert len(lines) <= STEPS - (killed_at - killed_at % 2 - 2), (
        "steps before the last checkpoint were run again"
    )


def test_the_result_is_a_checkpoint_that_answers(start, tmp_path):
    recipe = replace(EMBEDDED["alignment"], batch_size=4, steps=2)
    run = make_run(start, stage="alignment", recipe=recipe)
    train_on_phantoms(run, tmp_path / "out", engine=Engine(save_steps=1), log=lambda line: None)
    before, after = (weights(folder) for folder in (start, tmp_path / "out"))
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
    before = weights(tmp_path)
    train_on_phantoms(run, tmp_path, resume=True, **settings)  # a run that has ended stays as it is
    assert are_equal(weights(tmp_path), before)


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_training_questions_alone_become_dialogues(tmp_path):
    dialogues = read_training_data(make_vqa_rad(tmp_path), "vqa-rad")
    assert [dialogue.id for dialogue in dialogues] == ["0", "2", "3"]
    assert dialogues[1].turns == (("human", "<image>\nIs there a nodule 2?"), ("gpt", "4"))
    assert len(read_training_data(make_slake(tmp_path), "slake")) == 1  # the Chinese question is left out


@pytest.mark.parametrize("folder", real_folders("vqa_rad"), ids=str)
def test_the_release_of_vqa_rad_gives_the_paper_s_number_of_dialogues(folder):
    assert len(read_training_data(folder, "vqa-rad")) == find_recipe("full", "vqa-rad").samples == 1797


def test_broken_rows_and_absent_splits_are_refused(tmp_path):
    rows = [vqa_rad_row(1, answer="")]
    with pytest.raises(ValueError, match="1 broken rows, the first is row 1"), pytest.warns(UserWarning):
        read_training_data(make_vqa_rad(tmp_path, rows), "vqa-rad")
    rows = [vqa_rad_row(1, phrase_type="test_para")]
    with pytest.raises(ValueError, match="no training split of vqa-rad"):
        read_training_data(make_vqa_rad(tmp_path, rows), "vqa-rad")


def test_the_command_trains_on_a_release(tmp_path, start):
    folder = make_vqa_rad(tmp_path / "rad")
    done = run("--stage", "vqa", "--data", folder, "--dataset", "vqa-rad", "--model", str(start), *BRIEFLY,
               "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 dialogues in rad" in done.output
    losses = pd.read_csv(tmp_path / "out" / "losses.csv")
    assert losses.loss.notna().tolist() == [True, True]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["settings"]["data"], manifest["settings"]["dialogues"]) == ("rad", 3)


def test_the_command_trains_on_an_instruction_file_by_the_published_recipe(tmp_path, start):
    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": "A grey square."}]
    file = write_json(tmp_path / "rows.json", [{"id": "1", "image": "a.png", "conversations": turns}] * 2)
    done = run("--stage", "alignment", "--preset", "full", "--data", file, "--images", tmp_path, "--model", str(start),
               *BRIEFLY, "--set", "epochs=none", "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    recipe = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["recipe"]
    assert (recipe["projector_lr"], recipe["language_model_lr"]) == (1e-3, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "vqa", "--data", "x"), "--dataset for a VQA release"),
        (("--stage", "vqa", "--preset", "full"), "the full one takes --data"),
        (("--stage", "vqa", "--data", "x", "--dataset", "vqa"), "vqa-rad, slake, pathvqa"),
        (("--stage", "dpo", "--data", "x", "--dataset", "slake"), "no stage 'dpo'"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, arguments, message):
    done = run(*arguments, "--output", tmp_path / "out")
    assert done.exit_code != 0
    assert message in " ".join(done.output.split())
