"""Curves with intervals, one a system: what is drawn is the frame, column for column."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, ScalarFormatter

from medv_lab.views.style import PALETTE, SYSTEM_COLOURS, SYSTEM_LINES

_OTHERS = (("sky", "v"), ("orange", "P"), ("black", "X"))  # of systems that have no colour of their own


def plot_curves(
    data: pd.DataFrame, x: str, *, ax: Axes, xlabel: str, ylabel: str, is_falling: bool = False
) -> Axes:
    """Draw estimate against `x` on a binary scale for every system, its interval as an area; shares in percent.

    Args:
        data: rows of system, `x`, estimate, low, high.
        x: column of the abscissa.
        ax: where to draw.
        xlabel, ylabel: labels of the axes.
        is_falling: draw large values of `x` on the left.
    """
    others = iter(_OTHERS)
    for system, rows in data.groupby("system", sort=False):
        rows = rows.sort_values(x)
        if system in SYSTEM_COLOURS:
            colour, (marker, dash) = SYSTEM_COLOURS[system], SYSTEM_LINES[system]
        else:
            name, marker = next(others)
            colour, dash = PALETTE[name], "-"
        ax.fill_between(rows[x].astype(float), rows.low, rows.high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(
            rows[x].astype(float),
            rows.estimate,
            color=colour,
            marker=marker,
            linestyle=dash,
            markersize=3.5,
            linewidth=1.2,
            label=system,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(data[x].astype(int).unique()))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    if is_falling:
        ax.invert_xaxis()
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.grid(linewidth=0.4)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if data.system.nunique() > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderaxespad=0)
    return ax
