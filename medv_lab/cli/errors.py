"""What a user can put right, shown as one red line; what is a fault of ours keeps its traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer
from rich.console import Console


def _expected_errors() -> tuple[type[Exception], ...]:
    """Asked for only once something was raised, since naming them imports torch."""
    from medv_lab.evaluation.endpoint import EndpointError
    from medv_lab.evaluation.endpoint_judge import SpendingCapError
    from medv_lab.model.checkpoint_files import CheckpointError

    return (ValueError, FileNotFoundError, CheckpointError, EndpointError, SpendingCapError)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show our own errors as one red line, exit code 2."""
    try:
        yield
    except _expected_errors() as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(" ".join(str(error).split()), style="red", markup=False)
        raise typer.Exit(2) from error


@contextmanager
def one_voice() -> Iterator[None]:
    """Of the processes of a launch only the first prints; errors come from all."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
