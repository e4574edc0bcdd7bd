"""Errors that a user can put right are one red line; a fault of this package keeps its traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer
from rich.console import Console

# Errors with a clear text of their own, by module: importing these takes seconds, and what was never imported was
# never raised.
CLEAR = {
    "medv_lab.evaluation.endpoint": "EndpointError",
    "medv_lab.evaluation.endpoint_judge": "SpendingCapError",
    "medv_lab.model.checkpoint_files": "CheckpointError",
}


def expected_errors() -> tuple[type[Exception], ...]:
    """Return the errors that are shown as one line, as far as something could have raised them."""
    found = [getattr(sys.modules[module], name) for module, name in CLEAR.items() if module in sys.modules]
    return (ValueError, FileNotFoundError, *found)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show an expected error as one red line, and exit with code 2."""
    try:
        yield
    except expected_errors() as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(" ".join(str(error).split()), style="red", markup=False)
        raise typer.Exit(2) from error


@contextmanager
def main_process_only() -> Iterator[None]:
    """Let only the first process of a launch print; errors come from all."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
