"""Training, drawn: the loss of a run, once or again at every report, and the arms of the ablations."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes

from medv_lab.views.style import PALETTE, new_axes, themed

HEIGHT = 2.2  # inches
ARM_LOOKS = {"steps": (PALETTE["blue"], "o"), "compute": (PALETTE["orange"], "s")}


def plot_losses(history: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw loss against step of a history that `run_stage` returned (columns step, loss)."""
    ax = _loss_axes() if ax is None else ax
    ax.plot(history["step"], history["loss"], marker=".", linewidth=1)
    ax.set(xlabel="step", ylabel="loss")
    return ax


def watch_losses() -> Callable[[pd.DataFrame], None]:
    """Return a `watch` for `run_stage` that keeps one figure of the notebook up to date."""
    ax = _loss_axes()
    handle = display(ax.figure, display_id=True)
    plt.close(ax.figure)  # or the notebook shows it a second time at the end of the cell

    def update(history: pd.DataFrame) -> None:
        ax.clear()
        plot_losses(history, ax=ax)
        if handle is not None:  # None where there is no notebook
            handle.update(ax.figure)

    return update


def _loss_axes() -> Axes:
    with themed():
        return new_axes("column", HEIGHT)


def plot_arms(table: pd.DataFrame, score: str, *, ax: Axes | None = None) -> Axes:
    """Draw one score, a line per arm: mean, 95 % interval and every seed; equal steps and equal compute apart.

    An arm with fewer seeds than others says how many it has, and one with another base than the first says which.

    Args:
        table: columns arm, equal, score, seeds, mean, low, high, by_seed, as `studies.ablation_grid.tabulate` or
            `compare_arms` give them; differences get a line at 0.
        score: which one.
        ax: where to draw; a new figure of column width by default.

    Raises:
        ValueError: for a score that the table does not have.
    """
    own = table[table.score == score]
    if own.empty:
        raise ValueError(f"there is no score {score!r}; there are {', '.join(table.score.unique())}")
    base = own.base.iloc[0] if "base" in own else None
    notes = "" if base is None else own.base.map(lambda name: "" if name == base else f" minus {name}")
    own = own.assign(row=own.arm + notes)
    rows = list(dict.fromkeys(own.row))
    if ax is None:
        with themed():
            ax = new_axes("column", 0.6 + 0.25 * len(rows))
    for equal, (colour, marker) in ARM_LOOKS.items():
        part = own[own.equal == equal]
        if part.empty:
            continue
        shift = 0.12 if equal == "compute" else -0.12
        heights = [rows.index(row) + shift for row in part.row]
        ax.hlines(heights, part.low, part.high, color=colour, linewidth=1.5)
        seeds = [
            (float(value), at)
            for text, at in zip(part.by_seed, heights, strict=True)
            for value in text.split()
        ]
        ax.plot(part["mean"], heights, marker, color=colour, label=f"equal in {equal}", markersize=4.5)
        values, at = zip(*seeds, strict=True)
        ax.plot(values, at, "o", color="white", mec=colour, mew=0.7, markersize=2.2, label="_seeds")
    if base is not None:
        ax.axvline(0, color="0.5", linewidth=0.8)
    fewest = own.groupby("row").seeds.min()
    labels = [row if fewest[row] == own.seeds.max() else f"{row} ({fewest[row]} seeds)" for row in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.invert_yaxis()
    ax.set_xlabel(f"{score}, percent" if base is None else f"{score}, points minus {base}")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0, fontsize=7)
    return ax
