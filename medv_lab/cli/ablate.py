"""The command `medv ablations`: the training ablations, run, resumed or run anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medv_lab.cli.errors import clear_errors
from medv_lab.runtime import medv_home

SHOWN = ("closed", "open", "facts", "duplicates")


def ablations(
    output: Annotated[Path, typer.Option(help="folder of results")] = Path("results/ablations"),
    only: Annotated[
        list[str] | None, typer.Option(help="an arm by name, or main for those of Table 4; may be repeated")
    ] = None,
    equal: Annotated[str | None, typer.Option(help="only arms equal in steps, or in compute")] = None,
    seeds: Annotated[int, typer.Option(help="how many seeds, from 0 on")] = 5,
    rerun: Annotated[
        bool, typer.Option(help="train and score anew, and compare with what was there")
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="stage.setting=value of the recipes, e.g. instruct.steps=900; may be repeated"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="rounds of test questions; one asks about 130")] = 4,
    captions: Annotated[int, typer.Option(help="test pictures that are captioned")] = 100,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="train by torch.compile: faster after some minutes; needs a C++ compiler"
        ),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="folder of shared weights and features; by default in MEDV_HOME")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="save every cell's model in this folder too")] = None,
) -> None:
    """Run the training ablations on one CPU thread; cells that are there already are not run again."""
    with clear_errors():
        import torch

        from medv_lab.training.ablations import (
            AblationRunner,
            EvalConfig,
            check_against,
            read_cells,
            run_ablations,
            tabulate,
        )
        from medv_lab.training.pipelines import choose_arms, make_arms
        from medv_lab.training.trainer import Engine

        torch.set_num_threads(1)
        arms = choose_arms(make_arms(change or ()), only or (), equal)
        cache = medv_home() / "ablations" if cache is None else cache
        runner = AblationRunner(
            cache, evaluation=EvalConfig(rounds, captions), engine=Engine(compile=compiled), log=typer.echo
        )
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
        table = tabulate(read_cells(output))
        shown = table[table.score.isin(SHOWN)]
        _print(shown, "percent: mean over seeds and 95 % interval")


def _print(frame, title: str) -> None:
    typer.echo(title)
    typer.echo(frame.to_string(index=False, float_format="{:.1f}".format))
