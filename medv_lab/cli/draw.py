"""The commands `medv panels` and `medv exactness`, which ask models what figures show, and `medv figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medv_lab.cli.errors import clear_errors

PRESETS = ("embedded", "full")


def panels(
    system: Annotated[
        list[str] | None,
        typer.Option(help="NAME=CHECKPOINT (embedded, a folder or a hub id); may be repeated"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="panels folder; by default that of the preset")] = None,
    preset: Annotated[str, typer.Option(help="embedded or full: lengths and steps")] = "embedded",
    questions: Annotated[
        Path | None, typer.Option(help="other questions than phantoms: JSON lines, pictures relative to them")
    ] = None,
    batch_size: int = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
) -> None:
    """Ask systems what Figures 2 to 12 show; what is answered already is not asked again."""
    with clear_errors():
        from medv_lab.model.checkpoints import load
        from medv_lab.paper.figures import preset_folders
        from medv_lab.studies.panel_runs import (
            answer_panels,
            find_examples,
            plan_system,
            trace_example,
        )
        from medv_lab.studies.panels import PLANS

        folder = output or preset_folders(preset)[0] / "panels"
        plan = PLANS[preset]
        examples = find_examples(folder, questions)
        asked = []
        for spec in system or ["diffusion=embedded"]:
            name, separator, checkpoint = spec.partition("=")
            if not (name and separator and checkpoint):
                raise ValueError(f"--system is {spec!r}; give NAME=CHECKPOINT, e.g. diffusion=embedded")
            model, processor = load(checkpoint, device=device, dtype=dtype)
            typer.echo(f"{name}: {model.medv_source.name}", err=True)
            asked += plan_system(model, processor, name, plan, examples)
            if name == "diffusion":
                trace_example(model, processor, examples[0], plan, folder)
        answer_panels(asked, folder, batch_size=batch_size)
        typer.echo(
            f"{folder}: {sum(len(chosen) for _, chosen in asked)} answers of {len(system or [1])} system(s)"
        )


def exactness(
    output: Annotated[Path, typer.Option(help="results folder")] = Path("results/studies/exactness"),
    model: Annotated[str, typer.Option(help="embedded, a folder, or a hub id")] = "embedded",
    questions: Annotated[int, typer.Option(help="phantoms to describe")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
) -> None:
    """Report how far batch size, attention backend, dtype and caches move logits and tokens."""
    with clear_errors():
        from medv_lab.model.checkpoints import load
        from medv_lab.studies.exactness import run_exactness

        loaded, processor = load(model, device=device, dtype=dtype)
        scores = run_exactness(loaded, processor, output, questions)
        measures = {"different": "sum", "positions": "sum", "largest_drift": "max"}
        typer.echo(scores.groupby("comparison", sort=False).agg(measures).to_string())


def figures(
    output: Annotated[Path | None, typer.Option(help="folder of the figures")] = None,
    only: Annotated[str | None, typer.Option(help="one figure or table, by name or by its beginning")] = None,
    results: Annotated[Path | None, typer.Option(help="folder of measured results")] = None,
    preset: Annotated[
        str, typer.Option(help="embedded (results, figures) or full (results/full, figures/full)")
    ] = "embedded",
) -> None:
    """Draw figures and tables anew from published numbers and measured results, and a gallery of them."""
    with clear_errors():
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
        typer.echo(f"{len(chosen) - len(missing)} drawn, {len(missing)} lack results; see {gallery}")
