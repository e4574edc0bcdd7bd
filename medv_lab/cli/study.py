"""The command `medv study`: what the sampler's settings do to descriptions, measured, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli.errors import clear_errors

if TYPE_CHECKING:
    import pandas as pd


def study(
    name: Annotated[str, typer.Argument(help="frontier, steps or eos")],
    output: Annotated[Path, typer.Option(help="folder of studies; a killed one goes on")] = Path(
        "results/studies"
    ),
    questions: Annotated[int, typer.Option(help="phantoms of the test split to describe")] = 200,
    batch: Annotated[int, typer.Option(help="descriptions at a time")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
) -> None:
    """Score the embedded model's descriptions in many settings: scores, summary and manifest."""
    with clear_errors():
        from medv_lab.model.checkpoints import load
        from medv_lab.studies.arms import EXACT
        from medv_lab.studies.sampler_studies import ENOUGH, choose_fast, run_study

        model, processor = load("embedded", device=device, dtype=dtype)
        summary = run_study(
            name, model, processor, output, questions=questions, batch_size=batch, log=typer.echo
        )
        Console().print(_as_table(name, summary))
        if name == "frontier":
            quick = summary[(summary["passes"] <= EXACT.gen_length / 4) & (summary["share"] >= 0.95)]
            names = ", ".join(quick["arm"]) or "none"
            typer.echo(f"at most L / 4 passes and 95 % of the exact score or more: {names}")
            typer.echo(
                f"least time at {ENOUGH:.0%} of the exact score or more: {choose_fast(summary) or 'none'}"
            )


def _as_table(name: str, summary: pd.DataFrame) -> Table:
    table = Table(title=f"{name}: {summary['questions'].iloc[0]} descriptions, 95 % intervals")
    for column in ("arm", "passes", "seconds", "fact score", "of the exact", "adjacent duplicates", "words"):
        table.add_column(column)
    for row in summary.itertuples():
        table.add_row(
            row.arm,
            f"{row.passes:.1f}",
            f"{row.seconds:.3f}",
            f"{row.score:.3f} [{row.score_low:.3f}, {row.score_high:.3f}]",
            f"{100 * row.share:.1f} %",
            f"{row.adjacent_duplicates:.3f}",
            f"{row.words:.1f}",
        )
    return table
