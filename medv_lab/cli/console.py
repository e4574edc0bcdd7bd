"""What commands print: tables, and by the first process of a launch only; an expected error as one red line.

Errors that a user can put right are `ValueError`s, or what the system says of a file (absent, a folder, read-only, a
full disk); a fault of this package keeps its traceback.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

import typer
from rich.console import Console
from rich.table import Table


def print_table(rows: Iterable[Iterable[object]], *columns: str, title: str | None = None) -> None:
    """Print rows of cells under the names of the columns."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show an expected error as one red line, and exit with code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
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
