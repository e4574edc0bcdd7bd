"""Measurements, drawn: curves, forests, the frontier of quality and cost, exactness, and the time of a step.

Every function takes a table, draws all of it on `ax`, or on a new figure, and gives the Axes back.
"""

from collections.abc import Collection, Mapping
from itertools import cycle, pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from medv_lab.views.style import ACCENT, PALETTE, POINTS_PER_INCH, SMALLEST_FONT, SYSTEM_LOOKS, new_axes

HEIGHTS = {"curves": 2.4, "frontier": 4.2, "exactness": 2.6, "speed": 2.0}  # inches
FOREST_ROW = 0.19  # inches per row of a forest
SERIES = tuple(zip(PALETTE.values(), ("o", "s", "^", "D", "v", "P", "X", "*"), strict=True))
GREY = "#404040"
# Group of arms: colour and marker. Groups of a user's own take the accent, and markers in turn.
GROUP_LOOKS = {
    "Z": (PALETTE["black"], "o"),
    "other order": (PALETTE["blue"], "s"),
    "adaptive": (PALETTE["orange"], "^"),
    "guard": (PALETTE["green"], "D"),
    "revision": (PALETTE["purple"], "v"),
    "cache": (PALETTE["sky"], "P"),
    "length": (GREY, "X"),
    "fast": (ACCENT, "*"),
}
OWN_MARKERS = ("h", "p", "<", ">", "d")
AXIS_LABELS = {
    "passes": "forward passes per answer (NFE)",
    "seconds": "seconds per answer",
    "score": "fact score",
    "adjacent_duplicates": "adjacent duplicates",
}
AROUND_NAME, AROUND_LINE = np.array([[-1, -1, 1, 1], [-0.5, 0, 0.5, 0]])  # points added to a box
LINE_PIECES = 30
NAME_RINGS = (6, 12, 20, 30, 42, 56, 72)  # points from a point to its name
SMALLEST_DRIFT = 1e-9  # no drift at all is drawn here, since a logarithm has no 0
STEP_PARTS = {"backbone": PALETTE["blue"], "head": PALETTE["sky"], "sampler": ACCENT}
WAYS = ("reference", "exact", "floor", "fast")


def plot_curves(
    data: pd.DataFrame,
    x: str,
    *,
    by: str = "system",
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "",
    is_falling: bool = False,
) -> Axes:
    """Draw estimates against `x` on a binary scale, a line per name with its interval as an area; shares in percent.

    Args:
        data: rows of `by`, `x`, estimate, low, high; at most 8 names.
        x: column of the abscissa.
        by: column of the names; systems keep their colours.
        ax, xlabel, ylabel: where to draw, and labels of the axes.
        is_falling: draw large values of `x` on the left.

    Returns:
        The Axes; for each name, in the order of the data, a line (x, estimate) and an area from low to high.
    """
    ax = new_axes("column", HEIGHTS["curves"]) if ax is None else ax
    names = list(dict.fromkeys(data[by]))
    taken = {SYSTEM_LOOKS[name][0] for name in names if name in SYSTEM_LOOKS}
    free = (look for look in SERIES if look[0] not in taken)
    for name, rows in data.groupby(by, sort=False):
        rows = rows.sort_values(x)
        colour, marker, dash = SYSTEM_LOOKS.get(name) or (*next(free), "-")
        at = rows[x].astype(float)
        ax.fill_between(at, rows.low, rows.high, color=colour, alpha=0.18, linewidth=0)
        look = {"color": colour, "marker": marker, "linestyle": dash, "markersize": 3.5, "linewidth": 1.2}
        ax.plot(at, rows.estimate, label=name, clip_on=False, zorder=3, **look)  # a point at 0 is whole
    _use_binary_scale(ax)
    ax.set_xticks(sorted(data[x].astype(int).unique()))
    if is_falling:
        ax.invert_xaxis()
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    ax.grid(linewidth=0.4)
    ax.set_ylim(bottom=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(names) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderaxespad=0)
    return ax


def plot_repetition_vs_steps(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw repetition against the number of sampling steps Z, as `plot_curves` does; fewer steps to the right.

    The frame has rows of steps, metric, estimate, low, high, e.g. of `bootstrap_interval`, and at most 8 metrics.
    """
    frame = frame.assign(metric=frame.metric.str.replace("_", " "))
    labels = {"xlabel": "sampling steps Z", "ylabel": "repetition"}
    ax = plot_curves(frame, "steps", by="metric", ax=ax, is_falling=True, **labels)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


def plot_forest(data: pd.DataFrame, by: str, x: str, *, ax: Axes | None = None, xlabel: str = "") -> Axes:
    """Draw the means `x` with their intervals `x`_low to `x`_high, one row per name in `by`, the first on top.

    Returns:
        The Axes; its container holds the points in the order of the data.
    """
    ax = new_axes("column", 0.6 + FOREST_ROW * len(data)) if ax is None else ax
    rows = range(len(data))
    look = {"color": PALETTE["blue"], "fmt": "o", "markersize": 3.5, "elinewidth": 1}
    ax.errorbar(data[x], rows, xerr=_errors(data, x), **look)
    ax.set_yticks(rows, data[by])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.grid(linewidth=0.4)
    return ax


def plot_frontier(
    summary: pd.DataFrame,
    *,
    x: Literal["passes", "seconds"] = "passes",
    y: Literal["score", "adjacent_duplicates"] = "score",
    ax: Axes | None = None,
    names: Collection[str] | None = None,
) -> Axes:
    """Draw what is reached, with its interval, against what it costs: a point per arm, the exact sampler's joined.

    Args:
        summary: of a study, as `summarise_study` makes it; groups of a user's own arms are drawn in the accent.
        x: what an answer costs; on a logarithmic axis.
        y: what is reached.
        ax: where to draw; a new figure of page width by default.
        names: arms whose names are written beside their points; None for those that are `unbeaten`, the preset `fast`
            and a user's own.

    Returns:
        The Axes; for each group of arms, in the order of the summary, one line of points, and their names as texts.
    """
    ax = new_axes("page", HEIGHTS["frontier"]) if ax is None else ax
    own = [group for group in dict.fromkeys(summary["group"]) if group not in GROUP_LOOKS]
    looks = GROUP_LOOKS | {group: (ACCENT, marker) for group, marker in zip(own, cycle(OWN_MARKERS))}
    for group, part in summary.groupby("group", sort=False):
        colour, marker = looks[group]
        part = part.sort_values(x)
        ax.errorbar(
            part[x],
            part[y],
            yerr=_errors(part, y),
            color=colour,
            marker=marker,
            markersize=9 if group == "fast" else 5,
            linestyle="-" if group == "Z" else "none",
            linewidth=1,
            elinewidth=0.6,
            label="exact (low confidence)" if group == "Z" else group,
        )
    _use_binary_scale(ax)
    ax.set(xlabel=AXIS_LABELS[x], ylabel=AXIS_LABELS[y])
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if names is None:
        chosen = summary["group"].isin(["fast", *own])
        names = [*unbeaten(summary, x, y), *summary["arm"][chosen]]
    _name_points(ax, summary[summary["arm"].isin(names)], x, y)
    return ax


def unbeaten(summary: pd.DataFrame, x: str = "passes", y: str = "score") -> list[str]:
    """Find the arms than which none reaches more at as little cost or less; of duplicates, none fewer."""
    reached = -summary[y] if y == "adjacent_duplicates" else summary[y]
    in_order = summary.assign(reached=reached).sort_values([x, "reached"], ascending=[True, False])
    best = in_order["reached"].cummax()
    return in_order["arm"][best > best.shift(fill_value=float("-inf"))].tolist()


def _name_points(ax: Axes, summary: pd.DataFrame, x: str, y: str) -> None:
    """Write names beside points, each where it covers least: no other name, no point, no interval, no edge.

    A name that stands apart from its point is joined to it by a thin line. Everything is in printer's points; a box is
    (left, low, right, high).
    """
    ax.figure.draw_without_rendering()  # settles the limits, which say where points are
    scale = POINTS_PER_INCH / ax.figure.dpi
    inside = scale * ax.get_window_extent().get_points().reshape(1, 4)
    drawn = _drawn_boxes(ax, scale)
    for row in summary.sort_values(y, ascending=False).to_dict("records"):
        at = scale * ax.transData.transform((row[x], row[y]))
        name = ax.annotate(
            row["arm"],
            (row[x], row[y]),
            (0, 0),
            textcoords="offset points",
            fontsize=SMALLEST_FONT,
            color=GREY,  # light colours of points cannot be read as letters
            va="center",
            ha="left",
            zorder=5,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0},
        )
        size = scale * Text.get_window_extent(name).size
        boxes = _boxes_around(at, size)
        apart = np.hypot(*(np.clip(at, boxes[:, :2], boxes[:, 2:]) - at).T)
        outside = size.prod() - _shared_areas(boxes, inside)
        covered = _shared_areas(boxes + AROUND_NAME, drawn)
        best = (covered + 10 * outside + 0.02 * apart).argmin()
        name.arrow_patch.set_visible(apart[best] > 1.5 * NAME_RINGS[0])
        name.set_position(boxes[best, :2] - at + [0, size[1] / 2])
        drawn = np.vstack([drawn, boxes[best]])


def _drawn_boxes(ax: Axes, scale: float) -> np.ndarray:
    """Return boxes (N, 4) of what names may not cover: points, intervals, and lines piece by piece."""
    boxes = []
    for line, _, (bars,) in ax.containers:
        half = line.get_markersize() / 2
        middles = scale * ax.transData.transform(line.get_xydata())
        boxes.append(np.hstack([middles - half, middles + half]))
        if line.get_linestyle() == "-":
            for ends in pairwise(middles):
                pieces = np.linspace(*ends, LINE_PIECES)
                boxes.append(np.hstack([pieces - 0.5, pieces + 0.5]))
        ends = scale * np.array([ax.transData.transform(segment) for segment in bars.get_segments()])
        boxes.append(ends.reshape(-1, 4) + AROUND_LINE)
    return np.vstack(boxes)


def _boxes_around(at: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return where a name may stand (N, 4): on rings around its point, the nearest first."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    towards = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (16, 2)
    corners = [at + radius * towards - size * (1 - towards) / 2 for radius in NAME_RINGS]
    low = np.concatenate(corners)
    return np.hstack([low, low + size])


def _shared_areas(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how much of each box (N, 4) the others (M, 4) cover together, in square points (N,)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return (high - low).clip(min=0).prod(axis=2).sum(axis=1)


def plot_exactness(reports: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the largest drift of logits, a point per prompt and a line per comparison; crosses where tokens differ.

    Args:
        reports: rows of `exactness_report`, with a column `comparison` that names the two ways.
        ax: where to draw; a new figure of page width by default.

    Returns:
        The Axes; its first collection holds the prompts whose tokens are the same, its second the others.
    """
    ax = new_axes("page", HEIGHTS["exactness"]) if ax is None else ax
    names = list(dict.fromkeys(reports["comparison"]))
    drift = reports["largest_drift"].clip(lower=SMALLEST_DRIFT)
    line = reports["comparison"].map(names.index)
    differs = reports["different"] > 0
    for chosen, look in (
        (~differs, {"color": PALETTE["blue"], "marker": "o", "label": "same tokens"}),
        (differs, {"color": ACCENT, "marker": "X", "label": "other tokens"}),
    ):
        ax.scatter(drift[chosen], line[chosen], s=22, edgecolor="white", linewidth=0.4, **look)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(_label_drift)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="largest drift of a logit")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0)
    return ax


def _label_drift(drift: float, _: int) -> str:
    return "0" if drift <= SMALLEST_DRIFT else f"$10^{{{round(np.log10(drift))}}}$"


def speed_data(result: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate milliseconds per step of each way of a result of `run_benchmark`; by part of the exact sampler only."""
    times = pd.Series(result["seconds_per_step"]) * 1e3
    data = times[list(WAYS)].rename_axis("way").to_frame("step")
    data.loc["exact", list(STEP_PARTS)] = times[list(STEP_PARTS)]
    return data


def plot_speed(result: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw a bar per way, as long as a step of it takes; the exact sampler's is split into its parts."""
    ax = new_axes("column", HEIGHTS["speed"]) if ax is None else ax
    for way, row in speed_data(result).iterrows():
        left = 0.0
        for part, colour in STEP_PARTS.items() if way == "exact" else (("step", "0.6"),):
            ax.barh(way, row[part], left=left, color=colour, label=part if way == "exact" else None)
            left += row[part]
    ax.invert_yaxis()
    ax.set(xlabel=f"milliseconds per step ({result['size']}, {result['device_name']})")
    ax.legend(frameon=False, loc="lower right")
    return ax


def _errors(data: pd.DataFrame, name: str) -> list[pd.Series]:
    """Return how far an interval reaches below and above its estimate."""
    low, high = data[name] - data[f"{name}_low"], data[f"{name}_high"] - data[name]
    return [low.clip(lower=0), high.clip(lower=0)]


def _use_binary_scale(ax: Axes) -> None:
    """Set the abscissa to powers of two, written as plain numbers."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
