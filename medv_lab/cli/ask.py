"""The commands `medv ask`, `fill` and `doctor`: one question about a picture, and what this machine can run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medv_lab.cli.console import print_table
from medv_lab.cli.model_options import ModelOptions
from medv_lab.cli.options import GivenSettings
from medv_lab.config import GenerationSettings

if TYPE_CHECKING:
    from medv_lab.generation import Answer


@dataclass(frozen=True)
class Files:
    """Where an answer is kept.

    Attributes:
        trace: save the trace here (.npz).
        html: save a page that plays the unmasking here (.html).
        gif: save an animation of the unmasking here (.gif).
    """

    trace: Path | None = None
    html: Path | None = None
    gif: Path | None = None


def ask(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, WebP, BMP or DICOM")],
    question: Annotated[str, typer.Argument(help="about the picture")],
    model: ModelOptions,
    settings: GenerationSettings,
    files: Files = Files(),
) -> None:
    """Ask a model about a picture."""
    import medv_lab

    answer = medv_lab.ask(*model.load(), image, question, settings)
    _keep(answer, image, question, files)


def fill(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, WebP, BMP or DICOM")],
    question: Annotated[str, typer.Argument(help="about the picture")],
    canvas: Annotated[str, typer.Argument(help="'There is ____ in the lung.', a mask for each underscore")],
    model: ModelOptions,
    settings: GivenSettings,
    files: Files = Files(),
) -> None:
    """Let a model fill the gaps of an answer that is partly given.

    By default the answer is as long as the canvas, one block, a pass for each token; with a preset or a longer
    --gen-length it goes on behind the canvas.
    """
    import medv_lab
    from medv_lab.inputs.canvas import read_canvas

    loaded, processor = model.load()
    length = settings.changes.get("gen_length", len(read_canvas(canvas, processor.tokenizer)))
    chosen = settings.over(GenerationSettings(gen_length=length, block_length=length, steps=length))
    answer = medv_lab.ask(loaded, processor, image, question, chosen, canvas=canvas)
    _keep(answer, image, question, files)


def _keep(answer: Answer, image: Path, question: str, files: Files) -> None:
    """Print an answer, and write the files that are wanted of it."""
    from medv_lab.views.caption import make_caption

    typer.echo(answer.text)
    for note in answer.notes:
        typer.echo(note, err=True)
    caption = make_caption(question, image.name, answer.settings, answer.manifest)
    if files.trace is not None:
        answer.trace.save(files.trace)
    if files.html is not None:
        from medv_lab.views.page import unmasking_html

        unmasking_html(answer.trace, image, caption).save(files.html)
    if files.gif is not None:
        from medv_lab.data.images import open_image
        from medv_lab.views.animation import save_gif

        save_gif(answer.trace, files.gif, caption, open_image(image))


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
