"""What a user can put right is one red line, also when naming the error would have imported a lot."""

from importlib import import_module

import pytest
import typer

from medv_lab.cli import errors


@pytest.mark.parametrize(("module", "name"), errors.CLEAR.items())
def test_clear_errors_are_shown_as_one_line(module, name, capsys):
    kind = getattr(import_module(module), name)
    with pytest.raises(typer.Exit) as end, errors.clear_errors():
        raise kind("two\nlines [x]")
    assert end.value.exit_code == 2
    assert capsys.readouterr().err == "two lines [x]\n"


def test_other_errors_pass():
    with pytest.raises(KeyError), errors.clear_errors():
        raise KeyError("a fault")


@pytest.mark.parametrize(("rank", "printed"), [("0", "text\n"), ("1", "")])
def test_only_the_main_process_prints(rank, printed, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    with errors.main_process_only():
        print("text")
    assert capsys.readouterr().out == printed
