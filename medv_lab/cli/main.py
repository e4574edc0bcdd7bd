"""The command line: the same functions that the notebooks use. Heavy imports wait for the command that needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli.ablate import ablations
from medv_lab.cli.ask import ask, doctor
from medv_lab.cli.check import data
from medv_lab.cli.draw import figures, panels
from medv_lab.cli.errors import clear_errors
from medv_lab.cli.evaluate import evaluate
from medv_lab.cli.measure import benchmark, exactness, study
from medv_lab.cli.options import add_commands
from medv_lab.cli.tabulate import tables

if TYPE_CHECKING:
    from medv_lab.model.modeling import MedVForMaskedDiffusion
    from medv_lab.model.processing import MedVProcessor

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Masked-diffusion vision-language models.")
evaluate.command()(tables)
app.add_typer(evaluate, name="evaluate")
app.add_typer(data, name="data")
add_commands(app, ask, doctor, figures, panels, exactness, benchmark, study)
app.command()(ablations)

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


@app.command()
def train(
    output: Annotated[Path | None, typer.Option(help="folder of the new checkpoint")] = None,
    stage: Annotated[str, typer.Option(help="all, alignment, instruct or vqa")] = "all",
    preset: Annotated[str, typer.Option(help="embedded, or full with real data")] = "embedded",
    data: Annotated[
        Path | None, typer.Option(help="real data: an instruction file, or the folder of a VQA release")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="pictures of an instruction file")] = None,
    dataset: Annotated[str | None, typer.Option(help="of a VQA release: vqa-rad, slake or pathvqa")] = None,
    model: Annotated[
        str, typer.Option(help="what a stage starts from: embedded, a folder or a hub id")
    ] = "embedded",
    change: Annotated[
        list[str] | None, typer.Option("--set", help="setting=value of the recipe; may be repeated")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with a stage that was cut off")] = False,
    scenes: Annotated[int | None, typer.Option(help="phantoms to train a stage on")] = None,
    rounds: Annotated[int | None, typer.Option(help="rounds of questions about them")] = None,
    seed: Annotated[int, typer.Option(help="of a stage's data, order and noise")] = 0,
    save_steps: Annotated[int, typer.Option(help="steps between checkpoints of a stage")] = 100,
    log_steps: Annotated[int, typer.Option(help="steps between reports of the loss")] = 100,
    accumulation: Annotated[int, typer.Option(help="batches that make one step")] = 1,
    checkpointing: Annotated[bool, typer.Option(help="compute activations twice, to save memory")] = False,
    compile: Annotated[bool, typer.Option(help="use torch.compile")] = False,
    question_only: Annotated[bool, typer.Option(help="all: train the baseline that sees no picture")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="count parameters and memory of the full-size stages instead")
    ] = False,
    processes: Annotated[int, typer.Option(help="dry run: GPUs")] = 4,
) -> None:
    """Train one stage, on phantoms or on real data, or all of them to build an embedded checkpoint (over an hour)."""
    with clear_errors():
        if dry_run:
            _print_footprint(processes)
            return
        if output is None:
            raise ValueError("no output folder; give --output, or --dry-run")
        from medv_lab.training.recipes import find_recipe, vary
        from medv_lab.training.single_stage import (
            DialogueRun,
            PhantomRun,
            read_training_data,
            train_on_dialogues,
            train_on_phantoms,
        )
        from medv_lab.training.trainer import Engine

        engine = Engine(accumulation, checkpointing, compile, save_steps, log_steps=log_steps)
        if data is not None:
            if (dataset is None) == (images is None):
                raise ValueError(
                    "--data takes --images for an instruction file, or --dataset for a VQA release"
                )
            recipe = vary(
                find_recipe(preset, dataset if preset == "full" and dataset else stage), change or ()
            )
            dialogues = read_training_data(data, dataset)
            typer.echo(f"{len(dialogues)} dialogues in {data.name}")
            run = DialogueRun(recipe, data.name, len(dialogues), model, seed)
            train_on_dialogues(
                run, dialogues, images or data, output, engine=engine, resume=resume, log=typer.echo
            )
            return
        if preset != "embedded":
            raise ValueError(
                f"preset is {preset!r}; phantoms train the preset 'embedded', the full one takes --data"
            )
        if stage == "all":
            from medv_lab.training.embedded import rebuild

            if resume or change or model != "embedded":
                raise ValueError(
                    "--stage all takes no --resume, --set or --model; they belong to a single stage"
                )
            rebuild(output, question_only=question_only, log=typer.echo)
            return
        if question_only:
            raise ValueError("--question-only belongs to --stage all")
        counts = {"scenes": scenes, "question_rounds": rounds}
        run = PhantomRun(
            stage,
            vary(find_recipe(preset, stage), change or ()),
            model,
            **{name: count for name, count in counts.items() if count is not None},
            seed=seed,
        )
        train_on_phantoms(run, output, engine=engine, resume=resume, log=typer.echo)


def _print_footprint(processes: int) -> None:
    """The full-size stages: parameters by part, and what a GPU keeps between steps."""
    from medv_lab.runtime import format_bytes
    from medv_lab.training.footprint import plan_stages

    def write(row):
        is_memory = row.name.endswith(("optimizer", "total"))
        return row.map(format_bytes if is_memory else "{:,.0f}".format)

    typer.echo(f"steps, parameters, and memory of each of {processes} GPUs")
    typer.echo(plan_stages(processes).T.astype(object).apply(write, axis=1).to_string())


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
