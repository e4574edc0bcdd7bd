"""The commands `medv data`: check a file of training data, count the questions of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medv_lab.cli.console import print_table
from medv_lab.cli.options import add_commands

if TYPE_CHECKING:
    from medv_lab.data.validation import LengthOf


def check(
    file: Annotated[Path, typer.Argument(help="instruction data: a JSON list or JSON Lines")],
    images: Annotated[Path, typer.Option(help="folder that image names are relative to")],
    open_images: Annotated[bool, typer.Option(help="decode every picture too")] = False,
    model: Annotated[
        str | None, typer.Option(help="compare lengths with this model's limit; decodes every picture")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="another limit than the model's")] = None,
    table: Annotated[Path | None, typer.Option("--output", help="save every broken row here (.csv)")] = None,
) -> None:
    """Report every broken row of a training file; exit code 2 if there is one."""
    from medv_lab.data.validation import check_instructions
    from medv_lab.store import replace_text

    length_of = None
    if model is not None:
        length_of, own_limit = _measure(model)
        max_length = own_limit if max_length is None else max_length
    elif max_length is not None:
        raise ValueError("--max-length needs --model, whose tokenizer and image settings count positions")
    report = check_instructions(
        file,
        images,
        open_images=open_images or model is not None,
        length_of=length_of,
        max_length=max_length,
    )
    for one in report.damages:
        typer.echo(str(one))
    if table is not None:
        replace_text(table, report.table().to_csv(index=False, lineterminator="\n"))
    summary = report.summary()
    rows = [(name, *map("{:.6g}".format, row)) for name, row in summary.iterrows()]
    print_table(rows, "quantity", *summary.columns, title="rows that are whole by themselves")
    for kind, number in report.counts().items():
        typer.echo(f"{kind}: {number}")
    typer.echo(f"{report.rows} rows, {report.images} images, {report.broken_rows} broken rows")
    if report.damages:
        raise typer.Exit(2)


def count(
    folders: Annotated[list[Path], typer.Argument(help="folders of VQA-RAD, SLAKE or PathVQA as released")],
    output: Annotated[Path, typer.Option(help="results folder")] = Path("results/table8"),
) -> None:
    """Count pictures and questions of VQA data sets by split, as Table 8 of the paper does."""
    import json

    import pandas as pd

    from medv_lab.data.vqa import count_questions, read_vqa, tell_dataset
    from medv_lab.paper.published import load_table
    from medv_lab.runtime import make_manifest
    from medv_lab.store import replace_text

    counts = []
    for folder in folders:
        reading = read_vqa(tell_dataset(folder), folder, need_images=False)
        counts.append(count_questions([one for one in reading.questions if one.tags["language"] == "en"]))
    titles = {title.lower(): title for title in load_table(8)["dataset"]}
    table = pd.concat(counts, ignore_index=True).replace({"split": {"validation": "val"}})
    table["dataset"] = table["dataset"].map(titles)
    manifest = make_manifest({"folders": [folder.name for folder in folders], "language": "en"})
    replace_text(output / "counts.csv", table.to_csv(index=False, lineterminator="\n"))
    replace_text(output / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    typer.echo(table.to_string(index=False))


def _measure(model: str) -> tuple[LengthOf, int | None]:
    """Return what counts the length of a dialogue in a model, and the longest that it takes; reads no weights."""
    from medv_lab.limits import parsed_by_others
    from medv_lab.model.checkpoint_files import CheckpointError, find_source
    from medv_lab.model.processing import MedVProcessor

    folder = find_source(model).folder
    with parsed_by_others(CheckpointError, f"{str(folder)!r} has no usable tokenizer or processor settings"):
        processor = MedVProcessor.from_pretrained(folder, local_files_only=True)
    return lambda dialogue, sizes: processor.count_dialogue(dialogue.turns, sizes), processor.max_length


data = typer.Typer(no_args_is_help=True, help="Look at training data.")
add_commands(data, check, count)
