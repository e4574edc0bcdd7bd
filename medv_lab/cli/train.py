"""The commands `medv train` and `medv ablations`: one stage, a whole checkpoint, or a grid of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medv_lab.cli.options import Fields
from medv_lab.runtime import medv_home
from medv_lab.training.recipes import Budget, Engine, EvalConfig, find_recipe, vary

if TYPE_CHECKING:
    import pandas as pd

SAVING = Engine(save_steps=100)
SHOWN = ("closed", "open", "facts", "duplicates")


@dataclass(frozen=True)
class RealData:
    """Real dialogues to train on.

    Attributes:
        data: real data: an instruction file, or the folder of a VQA release.
        images: pictures of an instruction file.
        dataset: of a VQA release: vqa-rad, slake or pathvqa.

    Raises:
        ValueError: unless data comes with images or with the name of its release.
    """

    data: Path | None = None
    images: Path | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.data is not None and (self.dataset is None) == (self.images is None):
            raise ValueError("--data takes --images for an instruction file, or --dataset for a VQA release")


def train(
    *,
    output: Annotated[Path | None, typer.Option(help="folder of the new checkpoint")] = None,
    stage: Annotated[str, typer.Option(help="all, alignment, instruct or vqa")] = "all",
    preset: Annotated[str, typer.Option(help="embedded, or full with real data")] = "embedded",
    real: RealData,
    model: Annotated[str, typer.Option(help="start of a stage: embedded, a folder or a hub id")] = "embedded",
    change: Annotated[
        list[str] | None, typer.Option("--set", help="setting=value of the recipe; may be repeated")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="so many optimiser steps, whatever the recipe says of steps and epochs")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with a stage that was cut off")] = False,
    budget: Annotated[
        Budget,
        Fields(only=("scenes", "question_rounds", "seed"), flags={"question_rounds": "--rounds"}),
    ],
    engine: Annotated[Engine, Fields(flags={"gradient_checkpointing": "--checkpointing"})] = SAVING,
    question_only: Annotated[bool, typer.Option(help="all: train the baseline that sees no picture")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="count parameters and memory of the full-size stages instead")
    ] = False,
    processes: Annotated[int, typer.Option(help="dry run: GPUs")] = 4,
) -> None:
    """Train one stage, on phantoms or on real data, or all of them to build an embedded checkpoint (over an hour)."""
    if dry_run:
        _print_footprint(processes)
        return
    if output is None:
        raise ValueError("no output folder; give --output, or --dry-run")
    changes = [*(change or ()), *(() if max_steps is None else ("epochs=none", f"steps={max_steps}"))]
    how = {"engine": engine, "resume": resume, "log": typer.echo}
    if real.data is not None:
        from medv_lab.training.single_stage import DialogueRun, read_training_data, train_on_dialogues

        recipe = find_recipe(preset, real.dataset if preset == "full" and real.dataset else stage)
        dialogues = read_training_data(real.data, real.dataset)
        typer.echo(f"{len(dialogues)} dialogues in {real.data.name}")
        run = DialogueRun(vary(recipe, changes), real.data.name, len(dialogues), model, budget.seed)
        train_on_dialogues(run, dialogues, real.images or real.data, output, **how)
    elif preset != "embedded":
        raise ValueError(
            f"preset is {preset!r}; phantoms train the preset 'embedded', the full one takes --data"
        )
    elif stage == "all":
        from medv_lab.training.embedded import rebuild

        if resume or changes or model != "embedded":
            raise ValueError("--stage all takes no --resume, --set or --model; they belong to a single stage")
        rebuild(output, question_only=question_only, budget=budget, device=engine.device, log=typer.echo)
    elif question_only:
        raise ValueError("--question-only belongs to --stage all")
    else:
        from medv_lab.training.single_stage import PhantomRun, train_on_phantoms

        recipe = vary(find_recipe(preset, stage), changes)
        run = PhantomRun(stage, recipe, model, budget.scenes, budget.question_rounds, budget.seed)
        train_on_phantoms(run, output, **how)


def ablations(
    *,
    output: Annotated[Path, typer.Option(help="folder of results")] = Path("results/ablations"),
    only: Annotated[
        list[str] | None, typer.Option(help="an arm by name, or main for those of Table 4; may be repeated")
    ] = None,
    equal: Annotated[str | None, typer.Option(help="only arms equal in steps, or in compute")] = None,
    seeds: Annotated[int, typer.Option(help="number of seeds, from 0 on")] = 5,
    rerun: Annotated[
        bool, typer.Option(help="train and score anew, and compare with what was there")
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="stage.setting=value of the recipes, e.g. instruct.steps=900; may be repeated"
        ),
    ] = None,
    evaluation: EvalConfig,
    engine: Annotated[Engine, Fields(only=("compile", "device"))],
    cache: Annotated[
        Path | None, typer.Option(help="folder of shared weights and features; by default in MEDV_HOME")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="save every cell's model in this folder too")] = None,
) -> None:
    """Run the training ablations; cells that are there already are not run again.

    Start the same command several times to use several cores (each with OMP_NUM_THREADS=1) or a GPU in full: the
    processes share the work among them.
    """
    from medv_lab.paper.comparison import state_agreement
    from medv_lab.studies.ablation_grid import (
        check_against,
        compare_arms,
        read_cells,
        run_ablations,
        tabulate,
    )
    from medv_lab.training.ablations import AblationRunner
    from medv_lab.training.pipelines import choose_arms, make_arms

    arms = choose_arms(make_arms(change or ()), only or (), equal)
    cache = medv_home() / "ablations" if cache is None else cache
    runner = AblationRunner(cache, evaluation=evaluation, engine=engine, log=typer.echo)
    before = tabulate(read_cells(output)) if rerun and (output / "cells").is_dir() else None
    cells = run_ablations(arms, range(seeds), runner, output, rerun=rerun)
    for cell in cells if before is not None else ():
        _print(check_against(before, cell), f"{cell['arm']}, seed {cell['seed']}, against what was there")
    if save is not None:
        for arm in arms:
            for seed in range(seeds):
                folder = save / f"{arm.name}-{arm.equal}-{seed}"
                runner.save(arm, seed, folder)
                typer.echo(str(folder))
    everything = read_cells(output)
    table = tabulate(everything)
    _print(
        table[table.score.isin(SHOWN)], "percent: mean, 95 % interval over seeds and questions, mean by seed"
    )
    typer.echo("\n".join(state_agreement(compare_arms(everything))))


def _print_footprint(processes: int) -> None:
    """Print parameters by part of the full-size stages, and what a GPU keeps between steps."""
    from medv_lab.runtime import format_bytes
    from medv_lab.training.footprint import plan_stages

    def write(row: pd.Series) -> pd.Series:
        is_memory = row.name.endswith(("optimizer", "total"))
        return row.map(format_bytes if is_memory else "{:,.0f}".format)

    typer.echo(f"steps, parameters, and memory of each of {processes} GPUs")
    typer.echo(plan_stages(processes).T.astype(object).apply(write, axis=1).to_string())


def _print(frame: pd.DataFrame, title: str) -> None:
    typer.echo(title)
    typer.echo(frame.to_string(index=False, float_format="{:.1f}".format))
