"""The commands `medv ask` and `medv doctor`: one question about a picture, and what this machine can run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medv_lab.cli.console import print_table
from medv_lab.cli.model_options import ModelOptions
from medv_lab.config import GenerationSettings


def ask(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, WebP, BMP or DICOM")],
    question: Annotated[str, typer.Argument(help="about the picture")],
    model: ModelOptions,
    settings: GenerationSettings,
    trace: Annotated[Path | None, typer.Option(help="save the trace here (.npz)")] = None,
) -> None:
    """Ask a model about a picture."""
    import medv_lab

    answer = medv_lab.ask(*model.load(), image, question, settings)
    typer.echo(answer.text)
    if trace is not None:
        answer.trace.save(trace)


def doctor() -> None:
    """Say what this machine has, and which checkpoints fit."""
    from medv_lab.model.checkpoint_files import doctor as examine
    from medv_lab.runtime import format_bytes

    found = examine()
    for name, value in found.items():
        if name != "checkpoints":
            is_size = name.startswith(("memory", "disk"))
            typer.echo(f"{name}: {format_bytes(value) if is_size else value}")
    rows = []
    for known in found["checkpoints"]:
        needs = "\n".join(f"{dtype}: {format_bytes(size)}" for dtype, size in known["needs"].items())
        fits = "\n".join(f"{where}: {'yes' if fit else 'no'}" for where, fit in known["fits"].items())
        size = f"{known['parameters'] / 1e9:.3g} B"
        rows.append((known["name"], size, needs, fits, known["licence"], known["note"]))
    print_table(rows, "checkpoint", "parameters", "needs", "fits", "licence", "note")
