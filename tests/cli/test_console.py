"""What a user can put right is one red line; a launch has one process that prints."""

import pytest
import typer

from medv_lab.cli import console
from medv_lab.evaluation.endpoint import EndpointError
from medv_lab.evaluation.endpoint_judge import SpendingCapError
from medv_lab.model.checkpoint_files import CheckpointError


@pytest.mark.parametrize(
    "kind", [ValueError, FileNotFoundError, EndpointError, SpendingCapError, CheckpointError]
)
def test_clear_errors_are_shown_as_one_line(kind, capsys):
    with pytest.raises(typer.Exit) as end, console.clear_errors():
        raise kind("two\nlines [x]")
    assert end.value.exit_code == 2
    assert capsys.readouterr().err == "two lines [x]\n"


def test_other_errors_pass():
    with pytest.raises(KeyError), console.clear_errors():
        raise KeyError("a fault")


@pytest.mark.parametrize(("rank", "printed"), [("0", "text\n"), ("1", "")])
def test_only_the_main_process_prints(rank, printed, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    with console.main_process_only():
        print("text")
    assert capsys.readouterr().out == printed
