"""The command `medv evaluate tables`: Tables 1, 2 and 3 measured on phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from medv_lab.cli.console import main_process_only, print_table
from medv_lab.cli.options import Fields
from medv_lab.studies.table_run import TableRun

SPREAD = {1: "group", 2: "benchmark", 3: "quantity"}  # what becomes the columns of the printed table
UNSHOWN = {"estimate", "low", "high", "reference_score", "candidate_score", "questions"}


@dataclass(frozen=True)
class TableModels:
    """The models that the tables compare.

    Attributes:
        diffusion: embedded, or a folder.
        ours, twin, v1, v2, question_only: folder of its model; without one its rows are missing.
    """

    diffusion: str = "embedded"
    ours: str | None = None
    twin: str | None = None
    v1: str | None = None
    v2: str | None = None
    question_only: str | None = None

    def by_system(self) -> dict[str, str]:
        """Return the models that were given, by the names of the tables."""
        shown = {"v1": "V1", "v2": "V2", "question_only": "question-only"}
        return {shown.get(name, name): model for name, model in vars(self).items() if model is not None}


@main_process_only()
def tables(
    output: Annotated[Path, typer.Option(help="results folder; a rerun asks only what is missing")],
    models: TableModels,
    run: Annotated[TableRun, Fields(only=("pictures", "rounds"))],
    only: Annotated[list[int] | None, typer.Option(help="1, 2 or 3; may be repeated")] = None,
) -> None:
    """Measure the counterparts of Tables 1, 2 and 3 on phantoms, with intervals and paired differences."""
    from medv_lab.studies.tables import TABLES, measure_tables

    for folder in measure_tables(models.by_system(), output, run, only or TABLES, log=typer.echo):
        _print_scores(folder)


def _print_scores(folder: Path) -> None:
    import pandas as pd

    scores = pd.read_csv(folder / "scores.csv", dtype={"steps": "Int64"})
    spread = SPREAD[int(folder.name.removeprefix("table"))]
    labels = [name for name in scores.columns if name not in UNSHOWN and name != spread]
    columns = list(dict.fromkeys(scores[spread]))
    rows = []
    for own, part in scores.groupby(labels, sort=False, dropna=False):
        cells = {
            getattr(row, spread): f"{row.estimate:.3g}"
            + ("" if pd.isna(row.low) else f"\n{row.low:.3g}-{row.high:.3g}")
            for row in part.itertuples()
        }
        rows.append(["" if pd.isna(one) else one for one in (*own, *map(cells.get, columns))])
    print_table(rows, *labels, *columns, title=f"{folder.name}: estimate, 95 % interval")
    typer.echo(f"answers, scores, differences and manifest in {folder}")
