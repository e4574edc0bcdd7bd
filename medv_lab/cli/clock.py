"""The command `medv benchmark`: the published loop, the exact sampler and the fast settings, timed side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medv_lab.cli.errors import clear_errors


def benchmark(
    size: Annotated[
        str, typer.Option(help="embedded, mid or 8b (needs a GPU); the last two have random weights")
    ] = "mid",
    repeats: Annotated[int, typer.Option(help="of every way; medians are reported")] = 3,
    output: Annotated[Path | None, typer.Option(help="save result and figure in this folder")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", help="write the result here; - prints one line")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
) -> None:
    """Time a step of every sampler, in one process and taking turns."""
    with clear_errors():
        import matplotlib as mpl

        mpl.use("Agg")
        from medv_lab.paper.exhibits import save_figure
        from medv_lab.studies.timing import SIZES, make_subject, run_benchmark
        from medv_lab.views.study_plots import plot_speed, speed_data
        from medv_lab.views.style import themed

        if size not in SIZES:
            raise ValueError(f"there is no size {size!r}; the sizes are {', '.join(SIZES)}")
        chosen = SIZES[size]
        result = {
            "size": size,
            **run_benchmark(make_subject(chosen, device, dtype), chosen.settings, repeats),
        }
        if as_json == "-":
            typer.echo(json.dumps(result))
        else:
            _print(result)
            if as_json is not None:
                Path(as_json).write_text(json.dumps(result, indent=1) + "\n")
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            stem = output / f"{size}-{result['device_name'].lower().replace(' ', '-')}"
            stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            data = speed_data(result)
            data.attrs["provenance"] = f"measured; run manifest: {stem.name}.json"
            with themed():
                save_figure(plot_speed(result).figure, data, stem)


def _print(result: dict) -> None:
    typer.echo(
        f"{result['size']} on {result['device_name']}, {result['threads']} threads, {result['repeats']} repeats"
    )
    for way, seconds in result["seconds_per_step"].items():
        typer.echo(f"seconds per step, {way}: {seconds:.4f}")
    for name in (
        "ratio_exact_vs_reference",
        "overhead_fraction",
        "ratio_fast_vs_reference",
        "ratio_fast_batch_vs_reference",
    ):
        low, high = result[f"{name}_range"]
        typer.echo(f"{name}: {result[name]:.3f} (from {low:.3f} to {high:.3f})")
    typer.echo(f"published loop and exact sampler gave the same tokens: {result['same_tokens']}")
