"""Figures, drawn from files and traces, each as pdf, png and the csv of what is drawn.

`FIGURES` holds those of published numbers alone; the others are drawn from our own runs and say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medv_lab.paper.published import load_table
from medv_lab.views.style import MODEL_COLOURS, MODEL_LINES, SMALLEST_FONT, WIDTHS, themed
from medv_lab.views.unmasking import plot_unmasking

if TYPE_CHECKING:
    from medv_lab.diffusion.trace import SampleTrace

RADAR_DOMAINS = {"cxr": "Chest X-ray", "mri": "MRI", "histology": "Histology", "gross": "Gross", "ct": "CT"}
RINGS = (20, 40, 60)
_VARYING = ("created", "commit", "dirty")  # of a manifest: new at every run, while nothing drawn changes


def radar_data() -> pd.DataFrame:
    """Relative scores of Figure 1: one row a model, one column a domain, from published Table 1."""
    table = load_table(1).set_index("model")
    data = table.loc[list(MODEL_COLOURS), list(RADAR_DOMAINS)]
    data.attrs["provenance"] = load_table(1).attrs["provenance"]
    return data


def plot_radar(data: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw models (rows) over domains (columns) as closed polygons on a polar Axes."""
    angles = np.linspace(0, 2 * np.pi, data.shape[1], endpoint=False)
    for model, values in data.iterrows():
        closed = np.append(values.to_numpy(), values.iloc[0])
        is_ours = model == "LLaDA-MedV"
        marker, dash = MODEL_LINES[model]
        ax.plot(
            np.append(angles, angles[0]),
            closed,
            color=MODEL_COLOURS[model],
            linewidth=1.8 if is_ours else 1.0,
            linestyle=dash,
            marker=marker,
            markersize=3,
            label=model,
            zorder=3 if is_ours else 2,
        )
    ax.set_xticks(angles, [RADAR_DOMAINS[name] for name in data.columns])
    ax.set_theta_offset(np.pi / 2)
    ax.tick_params(axis="x", pad=6)
    ax.set_rlim(0, 70)
    ax.set_yticks(RINGS, [])
    for ring in RINGS:  # on white, above the lines that pass there
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        ax.text(np.pi / 5, ring, ring, fontsize=SMALLEST_FONT, ha="center", va="center", bbox=box, zorder=4)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    return ax


def draw_radar(folder: Path) -> list[Path]:
    """Figure 1: six biomedical models over the five domains of Table 1, published numbers only."""
    data = radar_data()
    with themed():
        figure, ax = plt.subplots(
            figsize=(WIDTHS["column"], 3.9), subplot_kw={"projection": "polar"}, layout="constrained"
        )
        plot_radar(data, ax=ax)
        return save_figure(figure, data, folder / "fig01_radar")


def draw_unmasking_example(trace: SampleTrace, folder: Path) -> list[Path]:
    """How one answer of ours filled up.

    The csv's first line is the trace's run manifest, without time and commit: the same answer, the same bytes.
    """
    data = trace.to_frame().set_index("step")
    manifest = {key: value for key, value in trace.manifest.items() if key not in _VARYING}
    data.attrs["provenance"] = f"measured; run manifest: {json.dumps(manifest, sort_keys=True)}"
    with themed():
        return save_figure(plot_unmasking(trace).figure, data, folder / "unmasking_example")


def save_figure(figure: Figure, data: pd.DataFrame, stem: Path) -> list[Path]:
    """Write `stem`.pdf, .png and .csv, the same bytes at every run; closes the figure.

    The first line of the csv is a comment with the provenance in `data.attrs`.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(suffix) for suffix in (".pdf", ".png", ".csv")]
    figure.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    figure.savefig(paths[1], dpi=300, metadata={"Software": None})
    plt.close(figure)
    rows = data.to_csv(lineterminator="\n")
    paths[2].write_text(f"# {data.attrs['provenance']}\n{rows}", encoding="utf-8", newline="\n")
    return paths


FIGURES: dict[str, Callable[[Path], list[Path]]] = {"fig01_radar": draw_radar}
