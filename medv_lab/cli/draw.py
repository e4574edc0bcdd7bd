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
        from medv_lab.paper.drawing import results_folder
        from medv_lab.studies.panel_runs import (
            answer_panels,
            find_examples,
            plan_system,
            trace_example,
        )
        from medv_lab.studies.panels import PLANS

        folder = output or results_folder(preset) / "panels"
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
        from medv_lab.studies.exactness_study import run_exactness

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
    """Redraw figures and tables from published numbers and measured results; what is up to date is left alone."""
    with clear_errors():
        import matplotlib as mpl

        mpl.use("Agg")
        from medv_lab.paper.drawing import draw_exhibits, figures_folder, results_folder
        from medv_lab.paper.exhibits import MissingResults
        from medv_lab.paper.figures import EXHIBITS, choose
        from medv_lab.paper.gallery import GALLERY, write_gallery

        folder = output or figures_folder(preset)
        source = results or results_folder(preset)
        done = draw_exhibits(choose(only), source, folder, report=typer.echo)
        if done.drawn or not (folder / GALLERY).is_file():
            write_gallery(EXHIBITS, folder, source)
        if only is not None and done.missing:
            raise MissingResults("; ".join(f"{name}: {text}" for name, text in done.missing.items()))
        typer.echo(
            f"{folder}: {len(done.drawn)} drawn, {len(done.kept)} up to date, {len(done.missing)} lack results"
        )
