"""The commands that measure the sampler: `medv study`, `medv exactness` and `medv benchmark`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medv_lab.cli.console import print_table
from medv_lab.cli.model_options import DeviceOptions, ModelOptions
from medv_lab.cli.options import Fields
from medv_lab.store import require_writable

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("load", "answer")
STEP_PARTS = ("backbone", "head", "sampler")


def study(
    name: Annotated[str, typer.Argument(help="frontier, steps or eos")],
    device: DeviceOptions,
    output: Annotated[Path, typer.Option(help="folder of studies; one that was cut off is continued")] = Path(
        "results/studies"
    ),
    questions: Annotated[int, typer.Option(help="phantoms of the test split to describe")] = 400,
    batch: Annotated[int, typer.Option(help="descriptions at a time")] = 16,
) -> None:
    """Score the embedded model's descriptions in many settings: scores, summary and manifest."""
    import pandas as pd

    from medv_lab.studies.arms import EXACT, STUDIES
    from medv_lab.studies.sampler_studies import ENOUGH, choose_fast, run_study, score_controls

    model, processor = device.load()
    summary = run_study(name, model, processor, output, questions=questions, batch_size=batch, log=typer.echo)
    if summary is None:  # of several processes the first tells what all found
        return
    _print_summary(name, summary, score_controls(questions))
    if name == "frontier":
        most = EXACT.gen_length / 4
        quick = summary[(summary["passes"] <= most) & (summary["share"] >= 0.97)]
        names = ", ".join(quick["arm"]) or "none"
        typer.echo(f"at most L / 4 passes and 97 % of the exact score or more: {names}")
        found = choose_fast(pd.read_csv(output / name / "scores.csv"), STUDIES[name][1], most)
        said = f"least time at {ENOUGH:.0%} of the exact score or more, at most L / 4 passes"
        if found is None:
            typer.echo(f"{said}: none")
        else:
            arm, row = found
            kept = f"{row.share:.1%} [{row.share_low:.1%}, {row.share_high:.1%}]"
            typer.echo(f"{said}, chosen on one half of the scenes: {arm}; on the other it keeps {kept}")


def exactness(
    model: Annotated[ModelOptions, Fields(without=("download", "quantization", "offload"))],
    output: Annotated[Path, typer.Option(help="results folder")] = Path("results/studies/exactness"),
    questions: Annotated[int, typer.Option(help="phantoms to describe")] = 8,
    against: Annotated[
        list[str] | None, typer.Option(help="int8 or int4: compare these with bfloat16 instead")
    ] = None,
) -> None:
    """Report how far batch size, attention backend, dtype and caches, or fewer bits, move logits and tokens."""
    from medv_lab.studies.exactness import run_exactness

    require_writable(output)
    scores = run_exactness(*model.load(), output, questions, against or ())
    measures = {"different": "sum", "positions": "sum", "largest_drift": "max"}
    typer.echo(scores.groupby("comparison", sort=False).agg(measures).to_string())


def benchmark(
    device: DeviceOptions,
    size: Annotated[
        str, typer.Option(help="embedded, mid or 8b (needs a GPU); the last two have random weights")
    ] = "mid",
    model: Annotated[
        Path | None, typer.Option(help="a checkpoint folder in place of a size, e.g. a rehearsal")
    ] = None,
    repeats: Annotated[int, typer.Option(help="of each sampler; medians are reported")] = 3,
    lookahead: Annotated[
        list[int] | None,
        typer.Option(help="also measure so many guessed states beside each pass; may be repeated"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="save result and figure in this folder")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", help="write the result to this file; - prints it as one line")
    ] = None,
) -> None:
    """Time a step of every sampler, in one process and taking turns."""
    from medv_lab.studies.timing import FOLDER_SETTINGS, SIZES, Size, make_subject, run_benchmark

    if as_json not in (None, "-"):
        require_writable(file=Path(as_json))
    if output is not None:
        require_writable(output)
    if size not in SIZES:
        raise ValueError(f"there is no size {size!r}; the sizes are {', '.join(SIZES)}")
    chosen = SIZES[size]
    if model is not None:
        size, chosen = model.name, Size(FOLDER_SETTINGS, model=str(model))
    device.announce()
    subject = make_subject(chosen, device.device, device.dtype)
    result = {"size": size, **run_benchmark(subject, chosen.settings, repeats)}
    if lookahead:
        from medv_lab.studies.speculation import measure_lookahead

        result["lookahead"] = measure_lookahead(subject, chosen.settings, tuple(lookahead), repeats)
    if as_json == "-":
        typer.echo(json.dumps(result))
    else:
        _print_times(result)
        if as_json is not None:
            Path(as_json).write_text(json.dumps(result, indent=1) + "\n")
    if output is not None:
        _save_times(result, output)


def rehearse(
    out: Annotated[
        Path, typer.Option(help="folder of the checkpoint; it is made, or taken as it is if it is whole")
    ],
    size: Annotated[str, typer.Option(help="tiny, small or 8b (17 GB)")] = "tiny",
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
    trial: Annotated[
        list[str] | None, typer.Option(help="answer once in float32, bfloat16, int8 or int4, and measure it")
    ] = None,
    output: Annotated[Path, typer.Option(help="folder for what trials measure")] = Path("results/rehearsal"),
) -> None:
    """Write a checkpoint in the published layout with random weights, on which everything can be rehearsed."""
    from medv_lab.hardware.rehearsal import is_rehearsal, write_rehearsal
    from medv_lab.hardware.trial import run_trials

    if not is_rehearsal(out, size):
        write_rehearsal(size, out, seed=seed, log=typer.echo)
    typer.echo(f"{out} is ready: medv ask picture.png 'What is shown?' --model {out}")
    if trial:
        _print_trials(run_trials(out, trial, size, output))


def sizing(
    gpus: Annotated[list[int] | None, typer.Option(help="numbers of GPUs that share the evaluation")] = None,
    training: Annotated[int, typer.Option(help="GPUs that train")] = 4,
    trials: Annotated[Path, typer.Option(help="folder of what `medv rehearse --trial` measured")] = Path(
        "results/rehearsal"
    ),
    output: Annotated[Path | None, typer.Option(help="save both tables in this folder")] = None,
) -> None:
    """Tabulate how long full-size evaluation and training take, from measured seconds and stated assumptions."""
    from medv_lab.hardware.sizing import Assumptions, plan_evaluation, plan_training

    assumed = Assumptions()
    shown = vars(assumed) | {"peak": f"{assumed.peak:.3g}"}
    tables = {
        "evaluation": plan_evaluation(trials, gpus or (1, 4, 32), assumed),
        "training": plan_training(training, assumed),
    }
    typer.echo(f"assumed: {', '.join(f'{name} {value}' for name, value in shown.items())}")
    for name, table in tables.items():
        typer.echo(
            f"{name}, hours" + (f" on {training} GPUs" if name == "training" else " by number of GPUs")
        )
        typer.echo(table.to_string(index=False, float_format="{:.3g}".format))
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            table.to_csv(output / f"{name}.csv", index=False, float_format="%.6g")


def _print_trials(found: list[dict]) -> None:
    from medv_lab.runtime import format_bytes

    rows = [
        (
            one["precision"],
            format_bytes(one["weights"]),
            *(
                f"{format_bytes(one[part]['resident'])} ({format_bytes(one[part]['private'])})"
                for part in PARTS
            ),
            f"{one['load']['seconds']:.1f}",
            f"{one['seconds_first_pass']:.2f}",
            f"{one['seconds_later_pass']:.2f}",
            f"{one['answer']['seconds']:.1f}",
        )
        for one in found
    ]
    columns = ("precision", "weights", "peak while loading (private)", "peak while answering (private)")
    columns += ("s to load", "s first pass", "s later pass", "s answer")
    machine = found[0]["machine"]
    where = f"{machine['processor']}, {machine['threads']} threads, {format_bytes(machine['memory'])}"
    title = f"{where}; {machine['device']}; prompt of {found[0]['prompt']} positions"
    print_table(rows, *columns, title=title)


def _print_summary(name: str, summary: pd.DataFrame, controls: pd.DataFrame) -> None:
    """Print every arm, and below them what descriptions are read against."""

    def measure(row: Any) -> tuple[str, ...]:
        shares = (row.well_formed, row.repeated, row.contradictions)
        score = f"{row.score:.3f} [{row.score_low:.3f}, {row.score_high:.3f}]"
        return score, *(f"{share:.3f}" for share in shares), f"{row.words:.1f}"

    rows = [
        (
            row.arm,
            f"{row.passes:.1f}",
            f"{row.seconds:.3f}",
            f"{100 * row.share:.1f} %",
            f"{row.adjacent_duplicates:.3f}",
            *measure(row),
        )
        for row in summary.itertuples()
    ]
    rows += [(row.control, *"----", *measure(row)) for row in controls.itertuples()]
    columns = ("arm", "passes", "seconds", "of the exact", "adjacent duplicates")
    columns += ("fact score", "well-formed", "repeated", "contradictions", "words")
    title = f"{name}: {summary['questions'].iloc[0]} descriptions, 95 % intervals"
    print_table(rows, *columns, title=title)


def _print_times(result: dict) -> None:
    from medv_lab.runtime import format_bytes

    typer.echo(
        f"{result['size']} on {result['device_name']}, {result['threads']} threads, {result['repeats']} repeats"
    )
    rows = []
    for way, seconds in result["seconds_per_answer"].items():
        floor, ratio = result["model_seconds_per_step"].get(way), f"ratio_{way}_vs_reference"
        memory = result["peak_memory"].get(way)
        rows.append(
            (
                way,
                result["passes"][way],
                f"{1e3 * result['seconds_per_step'][way]:.2f}",
                "" if floor is None else f"{1e3 * floor:.2f}",
                f"{seconds:.3f}",
                _with_range(result, ratio) if ratio in result else "",
                "" if memory is None else format_bytes(memory),
            )
        )
    columns = ("way", "passes", "ms/pass", "in model", "s/answer", "ratio", "memory")
    print_table(rows, *columns, title="ratio: of the published loop's seconds per answer to these")
    for one in result.get("lookahead", ()):
        typer.echo(
            "dual cache, {block_length} positions per block, {threads} threads, {lookahead} states ahead: "
            "{passes} passes, {in_sequence} in sequence, {sequences} sequences, {seconds:.3f} s, ".format(
                **one
            )
            + f"{_with_range(one, 'speedup')} times as fast as without; same tokens: {one['same_tokens']}"
        )
    exact = ", ".join(f"{part} {1e3 * result['seconds_per_step'][part]:.2f} ms" for part in STEP_PARTS)
    typer.echo(f"an exact pass: {exact}")
    typer.echo(f"exact sampler over its floor: {_with_range(result, 'overhead_fraction')}")
    typer.echo(f"published loop and exact sampler gave the same tokens: {result['same_tokens']}")


def _with_range(result: dict, name: str) -> str:
    low, high = result[f"{name}_range"]
    return f"{result[name]:.3g} ({low:.3g}-{high:.3g})"


def _save_times(result: dict, output: Path) -> None:
    """Write the result and its figure, named after the size and the device."""
    import matplotlib as mpl

    mpl.use("Agg")
    from medv_lab.paper.exhibits import save_figure
    from medv_lab.views.study_plots import plot_speed, speed_data
    from medv_lab.views.style import themed

    output.mkdir(parents=True, exist_ok=True)
    stem = output / f"{result['size']}-{result['device_name'].lower().replace(' ', '-')}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    data = speed_data(result)
    data.attrs["provenance"] = f"measured; run manifest: {stem.name}.json"
    with themed():
        save_figure(plot_speed(result).figure, data, stem)
