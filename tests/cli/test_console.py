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


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (KeyError("a fault"), "KeyError: 'a fault'; this is a fault of medv-lab or of a library", 1),
        (RuntimeError("odd"), "RuntimeError: odd; this is a fault", 1),
        (FloatingPointError("no finite probability"), "no finite probability", 2),
        (ModuleNotFoundError("install it with pip"), "install it with pip", 2),
        (MemoryError(), "not enough memory: nothing was left", 2),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory: CUDA", 2),
        (ValueError("\x1b[31mred\x07 \ud800"), "\\x1b[31mred\\x07 \\ud800", 2),
    ],
)
def test_every_error_is_one_line_and_says_whose_it_is(error, said, code, capsys, monkeypatch):
    with pytest.raises(typer.Exit) as end, console.clear_errors():
        raise error
    line = capsys.readouterr().err
    assert line.startswith(said) or said in line
    assert line.count("\n") == 1 and end.value.exit_code == code
    monkeypatch.setenv("MEDV_TRACEBACK", "1")
    with pytest.raises(type(error)), console.clear_errors():
        raise error


@pytest.mark.parametrize("kind", [typer.Exit, typer.Abort, BrokenPipeError, KeyboardInterrupt])
def test_what_ends_a_command_passes(kind):
    with pytest.raises(kind), console.clear_errors():
        raise kind


@pytest.mark.parametrize(("rank", "printed"), [("0", "text\n"), ("1", "")])
def test_only_the_main_process_prints(rank, printed, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    with console.main_process_only():
        print("text")
    assert capsys.readouterr().out == printed
