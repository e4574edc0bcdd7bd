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
    html: Annotated[
        Path | None, typer.Option(help="save a page that plays the unmasking here (.html)")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="save an animation of the unmasking here (.gif)")] = None,
) -> None:
    """Ask a model about a picture."""
    import medv_lab
    from medv_lab.views.caption import make_caption

    answer = medv_lab.ask(*model.load(), image, question, settings)
    typer.echo(answer.text)
    caption = make_caption(question, image.name, settings, answer.manifest)
    if trace is not None:
        answer.trace.save(trace)
    if html is not None:
        from medv_lab.views.page import unmasking_html

        unmasking_html(answer.trace, image, caption).save(html)
    if gif is not None:
        from medv_lab.views.animation import save_gif

        save_gif(answer.trace, gif, caption)


def doctor(
    model: Annotated[
        str | None, typer.Option(help="propose settings for this one: a folder, a hub id, or LLaDA-MedV")
    ] = None,
) -> None:
    """Say what this machine has, and which checkpoints fit, or how one can be loaded."""
    from medv_lab.model.checkpoint_files import doctor as examine
    from medv_lab.runtime import format_bytes

    found = examine()
    for name, value in found.items():
        if name != "checkpoints":
            is_size = name.startswith(("memory", "disk"))
            typer.echo(f"{name}: {format_bytes(value) if is_size else value}")
    if model is not None:
        _propose(model)
        return
    rows = []
    for known in found["checkpoints"]:
        needs = "\n".join(f"{dtype}: {format_bytes(size)}" for dtype, size in known["needs"].items())
        fits = "\n".join(f"{where}: {'yes' if fit else 'no'}" for where, fit in known["fits"].items())
        size = f"{known['parameters'] / 1e9:.3g} B"
        rows.append((known["name"], size, needs, fits, known["licence"], known["note"]))
    print_table(rows, "checkpoint", "parameters", "needs", "fits", "licence", "note")


def _propose(model: str) -> None:
    """Print the ways to load a checkpoint, best first, and the first that fits as a command."""
    from medv_lab.hardware.proposals import propose_settings
    from medv_lab.runtime import format_bytes

    proposals = propose_settings(model)
    rows = [
        (
            one.device,
            one.dtype,
            one.quantization or "-",
            format_bytes(one.needs),
            format_bytes(one.free),
            f"install {one.lacks}" if one.lacks else "yes" if one.fits else "no",
        )
        for one in proposals
    ]
    print_table(rows, "device", "dtype", "quantization", "needs", "free now", "fits", title=model)
    best = next((one for one in proposals if one.fits), None)
    if best is None:
        typer.echo("nothing fits: free some memory or disk")
    else:
        typer.echo(f"medv ask picture.png 'What is shown?' --model {model} {best.options}")
        given = ", ".join(f"{name}={value!r}" for name, value in best.settings.items())
        typer.echo(f"medv_lab.load({model!r}, {given})")
