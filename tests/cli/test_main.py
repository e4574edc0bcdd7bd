"""The command line: what it draws, and one clear line when it cannot."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import medv_lab.cli.main
from medv_lab.cli.main import app

RUNNER = CliRunner()


def fails_in_one_line(*arguments: str) -> str:
    result = RUNNER.invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    return lines[-1] if len(lines) == 1 or "unning on" in lines[0] else pytest.fail(result.stderr)


@pytest.mark.parametrize("command", [["ask", "x.png", "What?"], ["evaluate", "phantoms"]])
def test_a_missing_checkpoint_is_one_line(command):
    assert "no_such_folder" in fails_in_one_line(*command, "--model", "./no_such_folder")


def test_an_unknown_split_is_one_line():
    assert "compositional" in fails_in_one_line("evaluate", "phantoms", "--split", "train2")


def test_an_unknown_choice_of_pictures_is_one_line():
    assert "shuffled" in fails_in_one_line("evaluate", "phantoms", "--pictures", "wrong")


def test_the_phantom_benchmark_prints_its_scores(tmp_path, monkeypatch):
    def always_yes(pictures, questions):
        return ["yes" for _ in questions]

    monkeypatch.setattr(medv_lab.cli.main, "_load", lambda *_: (None, None))
    monkeypatch.setattr("medv_lab.evaluation.responders.make_respond", lambda *_: always_yes)
    result = RUNNER.invoke(app, ["evaluate", "phantoms", "--rounds", "1", "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert {answer["answer"] for answer in answers} == {"yes"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["pictures"] == "right"
    closed = [answer["score"] for answer in answers if answer["is_closed"]]
    row = next(line for line in result.output.splitlines() if "closed" in line and "all" in line)
    assert str(len(closed)) in row
    assert f"{100 * sum(closed) / len(closed):.1f}" in row


def test_help_of_every_command_needs_no_torch():
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from typer.main import get_command
from typer.testing import CliRunner
from medv_lab.cli.main import app

def show(command, *names):
    result = CliRunner().invoke(app, [*names, "--help"])
    assert result.exit_code == 0, (names, result.output)
    print(*names)
    for name, each in getattr(command, "commands", {}).items():
        show(each, *names, name)

show(get_command(app))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"ask", "train", "evaluate vqa", "data check"} <= set(done.stdout.splitlines())
