"""The command line in a test, and the one line that it fails with."""

import pytest
from typer.testing import CliRunner

from medv_lab.cli.main import app

RUNNER = CliRunner()


def invoke(*arguments: object):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def succeeds(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fails_in_one_line(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    return lines[-1] if len(lines) == 1 or "unning on" in lines[0] else pytest.fail(result.stderr)
