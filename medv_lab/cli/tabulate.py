"""The command `medv evaluate tables`: Tables 1, 2 and 3 measured in the small world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli.errors import clear_errors, one_voice

ModelFolder = Annotated[
    str | None, typer.Option(help="folder of its model; without one its rows are missing")
]
SPREAD = {1: "group", 2: "benchmark", 3: "quantity"}  # what becomes the columns of the printed table
UNSHOWN = {"estimate", "low", "high", "reference_score", "candidate_score", "questions"}


def tables(
    output: Annotated[Path, typer.Option(help="results folder; a rerun asks only what is missing")],
    diffusion: Annotated[str, typer.Option(help="embedded, or a folder")] = "embedded",
    ours: ModelFolder = None,
    twin: ModelFolder = None,
    v1: ModelFolder = None,
    v2: ModelFolder = None,
    question_only: ModelFolder = None,
    only: Annotated[list[int] | None, typer.Option(help="1, 2 or 3; may be repeated")] = None,
    pictures: Annotated[int, typer.Option(help="of Tables 1 and 3, a multiple of 5")] = 30,
    rounds: Annotated[int, typer.Option(help="of balanced questions in each benchmark of Table 2")] = 4,
) -> None:
    """Measure the counterparts of Tables 1, 2 and 3 on phantoms, with intervals and paired differences."""
    with clear_errors(), one_voice():
        from medv_lab.studies.tables import TABLES, TableRun, measure_tables

        named = {"diffusion": diffusion, "ours": ours, "twin": twin, "V1": v1, "V2": v2}
        named["question-only"] = question_only
        given = {name: model for name, model in named.items() if model is not None}
        run = TableRun(pictures, rounds)
        for folder in measure_tables(given, output, run, only or TABLES, log=typer.echo):
            _print_scores(folder)


def _print_scores(folder: Path) -> None:
    scores = pd.read_csv(folder / "scores.csv", dtype={"steps": "Int64"})
    spread = SPREAD[int(folder.name.removeprefix("table"))]
    labels = [name for name in scores.columns if name not in UNSHOWN and name != spread]
    columns = list(dict.fromkeys(scores[spread]))
    printed = Table(*labels, *columns, title=f"{folder.name}: estimate, 95 % interval")
    for own, part in scores.groupby(labels, sort=False, dropna=False):
        cells = {getattr(row, spread): _cell(row) for row in part.itertuples()}
        printed.add_row(
            *("" if pd.isna(one) else str(one) for one in own), *(cells[name] for name in columns)
        )
    Console().print(printed)
    typer.echo(f"answers, scores, differences and manifest in {folder}")


def _cell(row) -> str:
    return f"{row.estimate:.3g}" + ("" if pd.isna(row.low) else f"\n{row.low:.3g}-{row.high:.3g}")
