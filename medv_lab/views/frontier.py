"""Score against cost: which settings of the sampler to pick."""

from collections.abc import Collection
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator, ScalarFormatter

from medv_lab.views.style import ACCENT, PALETTE, SMALLEST_FONT, new_axes

HEIGHT = 4.2  # inches
NAME_WIDTH = 80  # points
_POINTS_PER_INCH = 72
GREY = "#404040"
# Group of arms: colour and marker.
_GROUPS = {
    "Z": (PALETTE["black"], "o"),
    "other order": (PALETTE["blue"], "s"),
    "adaptive": (PALETTE["orange"], "^"),
    "guard": (PALETTE["green"], "D"),
    "revision": (PALETTE["purple"], "v"),
    "cache": (PALETTE["sky"], "P"),
    "length": (GREY, "X"),
    "fast": (ACCENT, "*"),
}
_LABELS = {
    "passes": "forward passes an answer (NFE)",
    "seconds": "seconds an answer",
    "score": "fact score",
    "recall": "recall of facts",
    "adjacent_duplicates": "adjacent duplicates",
}


def plot_frontier(
    summary: pd.DataFrame,
    *,
    x: Literal["passes", "seconds"] = "passes",
    y: Literal["score", "recall", "adjacent_duplicates"] = "score",
    ax: Axes | None = None,
    names: Collection[str] | None = None,
) -> Axes:
    """What is reached (with its interval) against what it costs, one point an arm; the exact sampler's joined.

    Args:
        summary: of a study, as `summarise_study` makes it.
        x: what an answer costs; on a logarithmic axis.
        y: what is reached.
        ax: where to draw; a new figure of page width by default.
        names: arms whose names are written beside their points; None for all.

    Returns:
        The Axes; for each group of arms, in the order of the summary, one line of points, and their names as texts.

    Raises:
        ValueError: for a group that has no colour.
    """
    unknown = sorted(set(summary["group"]) - set(_GROUPS))
    if unknown:
        raise ValueError(f"the groups {unknown} have no colour; the frontier draws {', '.join(_GROUPS)}")
    ax = new_axes("page", HEIGHT) if ax is None else ax
    for group, part in summary.groupby("group", sort=False):
        colour, marker = _GROUPS[group]
        part = part.sort_values(x)
        errors = [part[y] - part[f"{y}_low"], part[f"{y}_high"] - part[y]]
        ax.errorbar(
            part[x],
            part[y],
            yerr=[error.clip(lower=0) for error in errors],
            color=colour,
            marker=marker,
            markersize=9 if group == "fast" else 5,
            linestyle="-" if group == "Z" else "none",
            linewidth=1,
            elinewidth=0.6,
            label="exact (low confidence)" if group == "Z" else group,
        )
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel=_LABELS[x], ylabel=_LABELS[y])
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _name_points(ax, summary if names is None else summary[summary["arm"].isin(names)], x, y)
    return ax


def _name_points(ax: Axes, summary: pd.DataFrame, x: str, y: str) -> None:
    """Write each arm's name beside its point, pushed up where it would lie on another name."""
    ax.figure.draw_without_rendering()  # settles the limits, which say where points are
    taken: list[tuple[float, float]] = []
    for row in summary.sort_values(y).to_dict("records"):
        left, at = ax.transData.transform((row[x], row[y])) * _POINTS_PER_INCH / ax.figure.dpi
        low = at
        for other_left, other_low in sorted(taken, key=lambda place: place[1]):
            if abs(other_left - left) < NAME_WIDTH and abs(other_low - low) < SMALLEST_FONT:
                low = other_low + SMALLEST_FONT
        taken.append((left, low))
        ax.annotate(
            row["arm"],
            (row[x], row[y]),
            (6, low - at),
            textcoords="offset points",
            fontsize=SMALLEST_FONT,
            color=GREY,  # light colours of points cannot be read as letters
            va="center",
            zorder=3,
            path_effects=[withStroke(linewidth=2, foreground="white")],  # over the lines of other points
        )
