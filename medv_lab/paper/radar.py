"""Figure 1: systems over the five domains of Table 1, as published, and beside it as measured on phantoms."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medv_lab.paper.exhibits import Exhibit, MissingResults
from medv_lab.paper.measured import measured_open_ended
from medv_lab.paper.published import load_table, published_source
from medv_lab.views.style import MODEL_LOOKS, SMALLEST_FONT, SYSTEM_LOOKS, WIDTHS

RADAR_DOMAINS = {"cxr": "Chest X-ray", "mri": "MRI", "histology": "Histology", "gross": "Gross", "ct": "CT"}
RINGS = (20, 40, 60, 80)
HEIGHT = 3.4  # inches
# Measured systems that were trained to the budget of the ablations (see `studies.tables`); the others have the whole
# recipe of the embedded model. Scores are compared within one budget only.
ABLATION_BUDGET = ("ours", "twin", "V1", "V2")


def radar_data(results: Path) -> pd.DataFrame:
    """Collect relative scores: published ones of six models, then measured ones where the results folder has them.

    Columns: model, the five domains, source.
    """
    columns = ["model", *RADAR_DOMAINS, "source"]
    table = load_table(1).set_index("model", drop=False).loc[list(MODEL_LOOKS)]
    data = table.assign(source=published_source(1))[columns].reset_index(drop=True)
    with suppress(MissingResults):
        own = measured_open_ended(results)[columns].dropna()  # controls are not scored by domain
        data = pd.concat([data, own], ignore_index=True)
    return data


def plot_radar(data: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw models (rows: model and the five domains) as closed polygons on polar Axes."""
    angles = np.linspace(0, 2 * np.pi, len(RADAR_DOMAINS), endpoint=False)
    scores = data.set_index("model")[list(RADAR_DOMAINS)].astype(float)
    for model, values in scores.iterrows():
        is_ours = model in ("LLaDA-MedV", "diffusion")
        colour, marker, dash = (MODEL_LOOKS | SYSTEM_LOOKS).get(model, ("#595959", ".", ":"))
        ax.plot(
            [*angles, angles[0]],
            [*values, values.iloc[0]],
            color=colour,
            linewidth=1.8 if is_ours else 1.0,
            linestyle=dash,
            marker=marker,
            markersize=3,
            label=model,
            zorder=3 if is_ours else 2,
        )
    ax.set_xticks(angles, list(RADAR_DOMAINS.values()))
    ax.set_theta_offset(np.pi / 2)
    ax.tick_params(axis="x", pad=6)
    highest = 1.08 * float(scores.max(axis=None))
    ax.set_rlim(0, highest)
    rings = [ring for ring in RINGS if ring < highest]
    ax.set_yticks(rings, [])
    where = _clear_angle(angles, scores.to_numpy(), rings)
    for ring in rings:  # on white, below a line that passes there all the same
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        ax.text(where, ring, ring, fontsize=SMALLEST_FONT, ha="center", va="center", bbox=box, zorder=1.5)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    return ax


def _clear_angle(angles: np.ndarray, scores: np.ndarray, rings: Sequence[float]) -> float:
    """Return the angle, between two axes, where the polygons pass the rings at the largest distance."""
    between = 2 * np.pi / len(angles)
    behind = between * np.linspace(0.2, 0.8, 13)[:, None, None]  # an axis; (13, 1, 1)
    following = np.roll(scores, -1, axis=1)
    passing = scores * following * np.sin(between)  # the radius of a straight side: (13, models, axes)
    passing = passing / np.maximum(scores * np.sin(behind) + following * np.sin(between - behind), 1e-9)
    distances = np.abs(passing[..., None] - np.asarray(rings)).min(axis=(1, 3))
    best, axis = np.unravel_index(distances.argmax(), distances.shape)
    return float(angles[axis] + behind[best, 0, 0])


def draw_radar(data: pd.DataFrame, results: Path) -> Figure:
    """Draw radars side by side: published numbers, and measured ones by what the systems were trained with.

    Scores of other judges share no scale, and those of other training budgets no comparison.
    """
    is_published, is_short = data.source.str.startswith("published"), data.model.isin(ABLATION_BUDGET)
    charts = {
        "published: 8 B models, GPT-4.1 mini": data[is_published],
        "measured: phantoms, judged by facts": data[~is_published & ~is_short],
        "measured: training of the ablations": data[~is_published & is_short],
    }
    charts = {title: rows for title, rows in charts.items() if len(rows)}
    figure, axes = plt.subplots(
        1,
        len(charts),
        figsize=(WIDTHS["column" if len(charts) == 1 else "page"], HEIGHT),
        subplot_kw={"projection": "polar"},
        layout="constrained",
        squeeze=False,
    )
    for ax, (title, rows) in zip(axes[0], charts.items(), strict=True):
        plot_radar(rows, ax=ax)
        if len(charts) > 1:
            ax.set_title(title)
    return figure


RADAR = Exhibit(
    "fig01_radar",
    "Open-ended scores over five domains",
    "Relative scores of the paper's Table 1 as published; where results hold them, those of our systems stand beside, "
    "measured on phantoms by another judge and on a scale of their own; those trained to the budget of the ablations "
    "in a chart of their own.",
    radar_data,
    draw_radar,
)
