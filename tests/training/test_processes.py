"""Two processes train as one does at the same global batch, plain and with FSDP2; the engine files are Table 6's."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from medv_lab.hardware.rehearsal import write_rehearsal
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.training.callbacks import find_checkpoint
from medv_lab.training.recipes import EMBEDDED
from medv_lab.training.single_stage import PhantomRun, train_on_phantoms
from medv_lab.training.trainer import Engine
from tests.data.released import draw, write_json
from tests.training.test_trainer import are_equal

ENGINES = files("medv_lab.training") / "engines"
STEPS = 4
TRAIN = [
    *("train", "--stage", "instruct", "--scenes", "8", "--rounds", "1", "--log-steps", "1"),
    *(
        "--set",
        "batch_size=4",
        "--set",
        f"steps={STEPS}",
        "--set",
        "precision=fp32",
        "--set",
        "muon_lr=none",
        "--save-steps",
        "2",
    ),
]
LAUNCH = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]
PLAIN = [*LAUNCH, "--multi_gpu", "-m", "medv_lab"]
FSDP2 = [
    *LAUNCH,
    "--config_file",
    str(ENGINES / "fsdp2.yaml"),
    str(Path(__file__).with_name("fsdp_on_cpu.py")),
]


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    recipe = replace(EMBEDDED["instruct"], batch_size=4, steps=STEPS, precision="fp32", muon_lr=None)
    run = PhantomRun("instruct", recipe, str(start), scenes=8, question_rounds=1)
    train_on_phantoms(run, folder, engine=Engine(save_steps=2, log_steps=1), log=lambda line: None)
    return folder


def launch(command, start, output, *more, train=TRAIN):
    done = subprocess.run(
        [*command, *train, "--model", str(start), "--output", str(output), *more],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("command", [PLAIN, FSDP2], ids=["plain", "fsdp2"])
def test_two_processes_train_as_one_and_resume(start, alone, tmp_path, command):
    launch(command, start, tmp_path)
    checkpoint = find_checkpoint(tmp_path / "checkpoints")
    assert (checkpoint / "rng_state_1.pth").is_file(), "there was no second process"
    one, two = (pd.read_csv(folder / "losses.csv") for folder in (alone, tmp_path))
    assert len(two) == STEPS
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
    one, two = (load_file(folder / "model.safetensors") for folder in (alone, tmp_path))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)

    shutil.rmtree(checkpoint)
    (tmp_path / "model.safetensors").unlink()
    launch(command, start, tmp_path, "--resume")
    assert are_equal(load_file(tmp_path / "model.safetensors"), two)


def test_two_processes_train_a_rehearsal_of_the_published_layout_as_one(tmp_path):
    model = tmp_path / "model"
    write_rehearsal("tiny", model)
    draw(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "A lung."}]
    rows = [{"id": str(number), "image": "a.png", "conversations": turns} for number in range(4)]
    data = write_json(tmp_path / "data.json", rows)
    train = [
        *("train", "--preset", "full", "--stage", "instruct", "--data", str(data), "--images", str(tmp_path)),
        *("--set", "batch_size=2", "--set", "precision=fp32", "--max-steps", "3", "--log-steps", "1"),
    ]
    launch([sys.executable, "-m", "medv_lab"], model, tmp_path / "one", "--device", "cpu", train=train)
    launch(FSDP2, model, tmp_path / "two", train=train)
    one, two = (pd.read_csv(tmp_path / name / "losses.csv")["loss"] for name in ("one", "two"))
    assert len(two) == 3
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_the_engine_files_are_the_setting_of_table_6():
    for name, kind in (("fsdp2.yaml", "FSDP"), ("zero3.yaml", "DEEPSPEED")):
        config = load_config_from_file(str(ENGINES / name))
        assert config.distributed_type == kind
        assert (config.num_processes, config.mixed_precision) == (4, "bf16")
    assert config.deepspeed_config["zero_stage"] == 3
    sharding = load_config_from_file(str(ENGINES / "fsdp2.yaml")).fsdp_config
    assert sharding["fsdp_version"] == 2
    assert sharding["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    layers = sharding["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert layers == MedVForMaskedDiffusion._no_split_modules
