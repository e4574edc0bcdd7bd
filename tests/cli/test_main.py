"""All commands: their help needs nothing heavy, and what is missing is one clear line."""

import subprocess
import sys

import pytest

from tests.cli.console import fails_in_one_line


@pytest.mark.parametrize("command", [["ask", "x.png", "What?"], ["evaluate", "phantoms"]])
def test_a_missing_checkpoint_is_one_line(command):
    assert "no_such_folder" in fails_in_one_line(*command, "--model", "./no_such_folder")


def test_help_of_every_command_needs_nothing_heavy():
    code = """
import sys
for heavy in ("torch", "transformers", "pandas", "matplotlib", "openai"):
    sys.modules[heavy] = None
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
