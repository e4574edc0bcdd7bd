"""Two processes on a rehearsal folder answer what one answers: by accelerate launch, and as the tasks of an array."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medv_lab.hardware.rehearsal import write_rehearsal
from tests.data.released import make_vqa_rad, vqa_rad_row

QUESTIONS = 6
MEDV = [sys.executable, "-m", "medv_lab"]
LAUNCH = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--multi_gpu", "-m", "medv_lab"),
]


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("many")
    write_rehearsal("tiny", folder / "tiny")
    rows = [vqa_rad_row(number, phrase_type="test_freeform") for number in range(QUESTIONS)]
    data = make_vqa_rad(folder / "vqa_rad", rows)
    asked = ["evaluate", "vqa", "--data", str(data), "--model", str(folder / "tiny"), "--device", "cpu"]
    return [*asked, "--gen-length", "8", "--block-length", "8", "--steps", "2", "--batch-size", "1"]


def start(*command: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment,
    )


def finish(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]


def texts(folder: Path) -> dict[str, str]:
    (file,) = folder.glob("answers-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["question_id"]: line["text"] for line in lines}


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("alone")
    finish(start(*MEDV, *command, "--output", str(folder)))
    answers = texts(folder)
    assert len(answers) == QUESTIONS
    return answers


def assert_shared_out(folder: Path, alone: dict[str, str]) -> None:
    assert texts(folder) == alone
    written = [len(file.read_text().splitlines()) for file in folder.glob("predictions-*.jsonl")]
    assert sorted(written) == [QUESTIONS // 2] * 2


def test_a_launch_shares_the_questions_out(command, alone, tmp_path):
    finish(start(*LAUNCH, *command, "--output", str(tmp_path)))
    assert_shared_out(tmp_path, alone)


def test_tasks_of_an_array_meet_in_the_shared_folder(command, alone, tmp_path):
    tasks = [
        start(*MEDV, *command, "--output", str(tmp_path), RANK=str(number), WORLD_SIZE="2")
        for number in range(2)
    ]
    finish(*tasks)
    assert_shared_out(tmp_path, alone)
