"""The command line in a test, and the one line that it fails with."""

from typer.testing import CliRunner

from medv_lab.cli.main import app

RUNNER = CliRunner(env={"COLUMNS": "200"})


def invoke(*arguments: object):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def succeeds(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fails_in_one_line(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    *notes, line = result.stderr.strip().splitlines()
    said = ("unning on", "knows phantoms only", "answer/s]")  # beside the error: device, warning, progress
    assert all(any(part in note for part in said) for note in notes), result.stderr
    return line
