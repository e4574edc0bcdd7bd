"""The command line: the same functions that the notebooks use. Heavy imports wait for the command that needs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Masked-diffusion vision-language models.")


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, WebP, BMP or DICOM")],
    question: str,
    model: Annotated[str, typer.Option(help="embedded, a folder, or a hub id")] = "embedded",
    gen_length: Annotated[int, typer.Option(help="L, positions of the answer")] = 64,
    block_length: Annotated[int, typer.Option(help="B, positions of a block")] = 32,
    steps: Annotated[int, typer.Option(help="Z, forward passes")] = 64,
    temperature: float = 0.0,
    seed: int = 0,
    trace: Annotated[Path | None, typer.Option(help="save the trace here (.npz)")] = None,
    device: str = "auto",
    dtype: str = "auto",
    download: Annotated[bool, typer.Option(help="allow a download from the hub")] = False,
) -> None:
    """Ask a model about a picture."""
    with _clear_errors():
        import medv_lab

        settings = medv_lab.GenerationSettings(
            gen_length=gen_length, block_length=block_length, steps=steps, temperature=temperature, seed=seed
        )
        loaded, processor = medv_lab.load(model, device=device, dtype=dtype, download=download)
        answer = medv_lab.ask(loaded, processor, image, question, settings)
        typer.echo(answer.text)
        if trace is not None:
            answer.trace.save(trace)


@app.command()
def figures(
    output: Annotated[Path, typer.Option(help="folder of the figures")] = Path("figures"),
    only: Annotated[str | None, typer.Option(help="one figure, by name")] = None,
) -> None:
    """Redraw the figures."""
    with _clear_errors():
        from medv_lab.paper.figures import FIGURES

        if only is not None and only not in FIGURES:
            raise ValueError(f"there is no figure {only!r}; the figures are {', '.join(FIGURES)}")
        for name in [only] if only else FIGURES:
            for path in FIGURES[name](output):
                typer.echo(str(path))


@app.command()
def doctor() -> None:
    """Say what this machine has, and which checkpoints fit."""
    with _clear_errors():
        from medv_lab.model.memory import doctor as examine
        from medv_lab.model.memory import format_bytes

        found = examine()
        for name, value in found.items():
            if name != "checkpoints":
                is_size = name.startswith(("memory", "disk"))
                typer.echo(f"{name}: {format_bytes(value) if is_size else value}")
        table = Table("checkpoint", "parameters", "needs", "fits", "licence", "note")
        for known in found["checkpoints"]:
            needs = "\n".join(f"{dtype}: {format_bytes(size)}" for dtype, size in known["needs"].items())
            fits = "\n".join(f"{place}: {'yes' if fit else 'no'}" for place, fit in known["fits"].items())
            size = f"{known['parameters'] / 1e9:.3g} B"
            table.add_row(known["name"], size, needs, fits, known["licence"], known["note"])
        Console().print(table)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Show our own errors as one red line, exit code 2; anything else is a fault of ours and keeps its traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        Console(stderr=True).print(f"[red]{error}[/red]", highlight=False, markup=True)
        raise typer.Exit(2) from error
