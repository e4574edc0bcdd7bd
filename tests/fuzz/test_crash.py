"""Commands that write, killed, without room, where nothing may be written, and two at a time: what is left is whole.

After every fault the same command is given again, and leaves what it leaves where nothing went wrong. A full disk is a
limit on the size of files here, which the system reports in the same way.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.released import draw, make_chatbot, make_vqa_rad, write_json, write_lines

ROOT = Path(__file__).parents[2]
FAULTS = ("kill", "full", "forbidden", "two")
LONG = {
    "kill": 9,
    "full": 2,
    "forbidden": 2,
    "two": 2,
}  # times each fault is tried, for 7 commands: 105 faults
SHORT = ["--gen-length", "8", "--block-length", "8", "--steps", "8"]
LATEST = {"check": 1.5, "count": 1.5}  # seconds until a kill, at most; others load a model or a judge
VOLATILE = ("seconds", "time", "created", "date")


def commands(folder: Path) -> dict[str, list]:
    """The commands by name, without where they write to; their inputs are made."""
    row = {"id": "a", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>"}]}
    rows = write_json(folder / "rows.json", [row] * 2000)
    vqa, chat = make_vqa_rad(folder / "vqa"), make_chatbot(folder / "chat")
    answers = [{"question_id": number, "text": "a cyst"} for number in range(5)]
    file = write_lines(folder / "answers.jsonl", answers)
    picture = draw(folder / "picture.png")
    return {
        "check": ["data", "check", rows, "--images", folder],
        "count": ["data", "count", vqa],
        "vqa": ["evaluate", "vqa", "--data", vqa, "--answers", file],
        "chat": ["evaluate", "chat", "--data", chat, "--answers", file, "--judge", "overlap"],
        "phantoms": ["evaluate", "phantoms", "--rounds", "1", "--batch-size", "8"],
        "descriptions": ["evaluate", "descriptions", "--number", "4", *SHORT],
        "ask": ["ask", picture, "What is it?", *SHORT],
    }


def start(command: list, output: Path, room: int | None = None) -> subprocess.Popen:
    """Begin a command that writes to a place, files of at most so many bytes."""
    kind, name = command[0], {"ask": "--trace"}.get(command[0], "--output")
    place = output / "t.npz" if kind == "ask" else output / "broken.csv" if "check" in command else output
    limit = None if room is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    return subprocess.Popen(
        [sys.executable, "-m", "medv_lab", *map(str, command), name, str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=limit,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in err, err
    return process.returncode, (out + err).strip()


def remains(output: Path) -> dict[str, object]:
    """What a command left for good, without what differs from run to run; nothing else may lie about."""
    found = {}
    for path in sorted(output.rglob("*")):
        drafts = path.name.startswith((".medv-", ".broken", ".counts", ".scores", ".answers", ".manifest"))
        assert not drafts or path.name.endswith(".lock"), f"{path.name} was left behind"
        if path.suffix == ".jsonl" and path.name.startswith("answers-"):
            lines = map(json.loads, path.read_text().splitlines())
            found[path.name] = [{k: v for k, v in line.items() if k not in VOLATILE} for line in lines]
        elif path.suffix == ".csv":
            found[path.name] = path.read_text()
        elif path.suffix == ".npz":
            found[path.name] = "a trace"
    return found


def suffer(fault: str, command: list, name: str, folder: Path, usual: int, rng: random.Random) -> None:
    """Let a command, which usually ends with a code, suffer a fault, and check what it says."""
    if fault == "kill":
        process = start(command, folder)
        try:
            process.communicate(timeout=rng.uniform(0.1, LATEST.get(name, 12)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    elif fault == "full":
        code, said = finish(start(command, folder, room=rng.choice([0, 100, 1000])))
        assert code == 2 and "cannot be written" in said, said
    elif fault == "forbidden":
        blocked = folder.parent / "a file"
        blocked.write_text("")
        code, said = finish(start(command, rng.choice([blocked, Path("/proc/nowhere")])))
        assert (code == 2 and "annot be written" in said) or "is no folder" in said, said
    else:
        both = [start(command, folder), start(command, folder)]
        for code, said in map(finish, both):
            assert code == usual or "another run" in said, said


def check_survival(name: str, fault: str, times: int, tmp_path: Path) -> None:
    command = commands(tmp_path / "inputs")[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    usual, _ = finish(start(command, whole))
    expected = remains(whole)
    assert expected
    for number in range(times):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        suffer(fault, command, name, folder, usual, random.Random(f"{name} {fault} {number}"))
        assert finish(start(command, folder))[0] == usual
        assert remains(folder) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_a_command_survives_a_fault(fault, tmp_path):
    check_survival("check", fault, 1, tmp_path)


@pytest.mark.crash
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["check", "count", "vqa", "chat", "phantoms", "descriptions", "ask"])
def test_every_command_survives_every_fault(name, fault, tmp_path):
    check_survival(name, fault, LONG[fault], tmp_path)
