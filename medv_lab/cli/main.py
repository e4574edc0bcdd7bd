"""The command line: the same functions that the notebooks use. Heavy imports wait for the command that needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli.ask import ask, doctor
from medv_lab.cli.check import data
from medv_lab.cli.draw import figures, panels
from medv_lab.cli.errors import clear_errors
from medv_lab.cli.evaluate import evaluate
from medv_lab.cli.measure import benchmark, exactness, study
from medv_lab.cli.options import add_commands
from medv_lab.cli.tabulate import tables
from medv_lab.cli.train import ablations, train

if TYPE_CHECKING:
    from medv_lab.model.modeling import MedVForMaskedDiffusion
    from medv_lab.model.processing import MedVProcessor

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Masked-diffusion vision-language models.")
evaluate.command()(tables)
app.add_typer(evaluate, name="evaluate")
app.add_typer(data, name="data")
add_commands(app, ask, doctor, figures, panels, exactness, benchmark, study, train, ablations)

ModelOption = Annotated[str, typer.Option(help="embedded, a folder, or a hub id")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
DownloadOption = Annotated[bool, typer.Option(help="allow a download from the hub")]


@evaluate.command()
def phantoms(
    model: ModelOption = "embedded",
    split: Annotated[str, typer.Option(help="validation, test or compositional")] = "test",
    rounds: Annotated[int, typer.Option(help="balanced rounds; one asks about 130 questions")] = 6,
    pictures: Annotated[str, typer.Option(help="right, shuffled (another question's) or none")] = "right",
    output: Annotated[
        Path | None, typer.Option(help="save answers, scores and manifest in this folder")
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    download: DownloadOption = False,
) -> None:
    """Score a model on phantoms: accuracy and token recall in percent, with 95 % intervals."""
    with clear_errors():
        from medv_lab.config import PRESETS
        from medv_lab.evaluation.responders import make_respond
        from medv_lab.phantoms.benchmark import (
            domains_of,
            evaluate_phantoms,
            make_items,
            summarise,
            write_results,
        )
        from medv_lab.runtime import make_manifest

        items = make_items(split, rounds, pictures)
        loaded, processor = _load(model, device, dtype, download)
        settings = PRESETS["embedded-vqa"]
        results = evaluate_phantoms(items, make_respond(loaded, processor, settings))
        if output is not None:
            asked = {"split": split, "rounds": rounds, "pictures": pictures, **settings.to_dict()}
            write_results(results, make_manifest(asked, seed=settings.seed, model=loaded), output)
        for of, groups in (("family", None), ("domain", domains_of(items))):
            table = Table(
                title=f"{model}, {split} split, pictures {pictures}: score in percent (95 % interval)"
            )
            for name in ("kind", of, "questions", "score", "interval"):
                table.add_column(name)
            for row in summarise(results, groups).itertuples():
                interval = f"{row.low:.1f} to {row.high:.1f}"
                table.add_row(row.kind, row.group, str(row.questions), f"{row.score:.1f}", interval)
            Console().print(table)


def _load(
    model: str, device: str, dtype: str, download: bool
) -> tuple[MedVForMaskedDiffusion, MedVProcessor]:
    """Load a model, saying on stderr where it runs."""
    from medv_lab.model.checkpoints import load
    from medv_lab.runtime import resolve_device

    try:
        placement = resolve_device(device, dtype)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    typer.echo(placement.reason, err=True)
    return load(model, device=device, dtype=dtype, download=download)
