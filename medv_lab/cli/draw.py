"""The commands `medv panels`, which asks systems what the figures show, and `medv figures`, which draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medv_lab.cli.model_options import DeviceOptions


def panels(
    device: DeviceOptions,
    system: Annotated[
        list[str] | None,
        typer.Option(help="NAME=CHECKPOINT (embedded, a folder or a hub id); may be repeated"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="panels folder; by default that of the preset")] = None,
    preset: Annotated[str, typer.Option(help="embedded or full: lengths and steps")] = "embedded",
    questions: Annotated[
        Path | None, typer.Option(help="other questions than phantoms: JSON Lines, pictures relative to them")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="questions answered at a time")] = 8,
) -> None:
    """Ask systems what Figures 2 to 12 show; what is answered already is not asked again."""
    from dataclasses import replace

    from medv_lab.paper.figures import preset_folders
    from medv_lab.studies.panel_runs import answer_panels, find_questions, plan_system, trace_example
    from medv_lab.studies.panels import PLANS

    if preset not in PLANS:
        raise ValueError(f"there is no preset {preset!r}; the presets are {', '.join(PLANS)}")
    folder = output or preset_folders(preset)[0] / "panels"
    plan = PLANS[preset]
    found = find_questions(folder, questions)
    asked = []
    for spec in system or ["diffusion=embedded"]:
        name, separator, checkpoint = spec.partition("=")
        if not (name and separator and checkpoint):
            raise ValueError(f"--system is {spec!r}; give NAME=CHECKPOINT, e.g. diffusion=embedded")
        model, processor = replace(device, model=checkpoint).load()
        typer.echo(f"{name}: {model.medv_source.name}", err=True)
        asked += plan_system(model, processor, name, plan, found)
        if name == "diffusion":
            trace_example(model, processor, found[0], plan, folder)
    answer_panels(asked, folder, batch_size=batch_size)
    typer.echo(
        f"{folder}: {sum(len(one.questions) for one in asked)} answers of {len(system or [1])} system(s)"
    )


def figures(
    output: Annotated[Path | None, typer.Option(help="folder of the figures")] = None,
    only: Annotated[str | None, typer.Option(help="one figure or table, by name or by its beginning")] = None,
    results: Annotated[Path | None, typer.Option(help="folder of measured results")] = None,
    preset: Annotated[
        str, typer.Option(help="embedded (results, figures) or full (results/full, figures/full)")
    ] = "embedded",
) -> None:
    """Draw figures and tables anew from published numbers and measured results, and a gallery of them."""
    import matplotlib as mpl

    mpl.use("Agg")
    from medv_lab.paper.exhibits import MissingResults, draw_exhibits
    from medv_lab.paper.figures import EXHIBITS, choose, preset_folders
    from medv_lab.paper.gallery import write_gallery

    measured, folder = preset_folders(preset)
    measured, folder = results or measured, output or folder
    chosen = choose(only)
    missing = draw_exhibits(chosen, measured, folder, report=typer.echo)
    if only is not None and missing:
        raise MissingResults("; ".join(f"{name}: {text}" for name, text in missing.items()))
    gallery = write_gallery(EXHIBITS, folder, measured)
    typer.echo(
        f"{len(chosen) - len(missing)} drawn, {len(missing)} lack results\n"
        f"They lie in {folder}; {gallery} shows all of them in a browser.\n"
        f"Draw them again, which replaces them: medv figures, or one alone: medv figures --only {chosen[0].name}"
    )
