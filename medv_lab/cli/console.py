"""What commands print: tables, and by the first process of a launch only; an error as one red line.

Errors that a user can put right are `ValueError`s, what the system says of a file (absent, a folder, read-only, a full
disk) and of its memory, and what lacks; they end a command with code 2. Anything else is a fault of this package or of
a library: it is one line, too, with code 1, and MEDV_TRACEBACK=1 shows where it came from.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress

import typer
from rich.console import Console
from rich.table import Table

TRACEBACK = "MEDV_TRACEBACK"
_SHOWN = 2000
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate")


def print_table(rows: Iterable[Iterable[object]], *columns: str, title: str | None = None) -> None:
    """Print rows of cells under the names of the columns."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show an error as one red line, and exit with code 2, or 1 where nobody expected it."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without a character loses no answer
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        text, code = _explain(error)
        shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in " ".join(text.split()))
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(shown[:_SHOWN], style="red", markup=False)
        raise typer.Exit(code) from error


def _explain(error: Exception) -> tuple[str, int]:
    """Say what an error means to whoever gave the command, and with which code it ends."""
    said = str(error)
    if isinstance(error, MemoryError) or any(part in said.lower() for part in _MEMORY):
        return (
            f"there is not enough memory: {said or 'nothing was left'}; free some, or ask for less at a time",
            2,
        )
    if isinstance(error, ValueError | OSError | FloatingPointError | ImportError):
        return said or type(error).__name__, 2
    name = type(error).__name__
    advice = f"this is a fault of medv-lab or of a library that it uses; please report it ({TRACEBACK}=1 shows where)"
    return f"{name}: {said}; {advice}", 1


@contextmanager
def main_process_only() -> Iterator[None]:
    """Let only the first process of a launch print; errors come from all."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
