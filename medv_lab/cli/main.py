"""The command line: the same functions that the notebooks use. Heavy imports wait for the command that needs them."""

from __future__ import annotations

import typer

from medv_lab.cli.ask import ask, doctor, fill
from medv_lab.cli.check import data
from medv_lab.cli.draw import figures, panels
from medv_lab.cli.evaluate import evaluate
from medv_lab.cli.measure import benchmark, exactness, rehearse, sizing, study
from medv_lab.cli.options import add_commands
from medv_lab.cli.train import ablations, train

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Masked-diffusion vision-language models.")
app.add_typer(evaluate, name="evaluate")
app.add_typer(data, name="data")
add_commands(
    app, ask, fill, doctor, train, ablations, figures, panels, study, exactness, benchmark, rehearse, sizing
)
