"""The commands `medv data`: what a file of training data holds, and what is broken in it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli_errors import clear_errors

data = typer.Typer(no_args_is_help=True, help="Look at training data.")


@data.command()
def check(
    file: Annotated[Path, typer.Argument(help="instruction data: a JSON list or JSON Lines")],
    images: Annotated[Path, typer.Option(help="folder that image names are relative to")],
    open_images: Annotated[bool, typer.Option(help="decode every picture too")] = False,
    output: Annotated[Path | None, typer.Option(help="save every broken row here (.csv)")] = None,
) -> None:
    """Report every broken row of a training file; exit code 2 if there is one."""
    with clear_errors():
        from medv_lab.data.validation import check_instructions

        report = check_instructions(file, images, open_images=open_images)
        for one in report.damages:
            typer.echo(str(one))
        if output is not None:
            report.table().to_csv(output, index=False)
        summary = report.summary()
        table = Table("quantity", *summary.columns, title="rows that are whole by themselves")
        for name, row in summary.iterrows():
            table.add_row(name, *(f"{value:.6g}" for value in row))
        Console().print(table)
        for kind, number in report.counts().items():
            typer.echo(f"{kind}: {number}")
        typer.echo(f"{report.rows} rows, {report.images} images, {report.broken_rows} broken rows")
        if report.damages:
            raise typer.Exit(2)
