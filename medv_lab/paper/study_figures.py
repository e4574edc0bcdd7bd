"""Beyond the paper: the frontier of quality and speed, the study of ends, exactness, and the training ablations."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medv_lab.paper.exhibits import Exhibit, MissingResults, measured_source
from medv_lab.views.ablations import plot_arms
from medv_lab.views.exactness import plot_exactness
from medv_lab.views.frontier import plot_frontier
from medv_lab.views.style import PALETTE, WIDTHS, new_axes

FRONTIER, EOS = "studies/frontier/summary.csv", "studies/eos/summary.csv"
EXACTNESS = "studies/exactness/scores.csv"
DIFFERENCES = "ablations/differences.csv"
_EOS_PANELS = {"score": "fact score", "words": "words", "adjacent_duplicates": "adjacent duplicates"}
ABLATION_SCORES = ("facts", "open", "closed")
OURS, FAST = "ours", "fast"
_FOREST_COLUMNS = {"score": "mean", "score_low": "low", "score_high": "high"}
ROW = 0.19  # inches a row of a forest


def read_measured(results: Path, name: str, command: str) -> pd.DataFrame:
    """A csv file of the results folder, each row with its source.

    Raises:
        MissingResults: if it is not there.
    """
    path = results / name
    if not path.is_file():
        raise MissingResults(f"{name} is not there; make it with '{command}'")
    return pd.read_csv(path).assign(source=measured_source(path, results))


def collect_frontier(results: Path) -> pd.DataFrame:
    """The frontier study's summary."""
    return read_measured(results, FRONTIER, "medv study frontier")


def draw_frontier(data: pd.DataFrame, results: Path) -> Figure:
    """Fact score against forward passes, those named that none beats at less or equal cost; and all arms in rows."""
    figure, (points, rows) = plt.subplots(
        1,
        2,
        figsize=(WIDTHS["page"], 1.05 + 0.8 * ROW * len(data)),
        layout="constrained",
        width_ratios=(1.5, 1),
    )
    plot_frontier(data, ax=points, names=[*unbeaten(data), FAST])
    points.get_legend().remove()
    figure.legend(*points.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    points.margins(x=0.16)
    points.grid(linewidth=0.4)
    in_order = data.sort_values(["passes", "score"], ascending=[True, False]).rename(columns=_FOREST_COLUMNS)
    plot_forest(in_order, "arm", ax=rows, xlabel="fact score; fewest passes on top")
    rows.yaxis.tick_right()
    return figure


def unbeaten(data: pd.DataFrame) -> list[str]:
    """The arms than which none has a higher score at as few forward passes or fewer."""
    best, names = float("-inf"), []
    for row in data.sort_values(["passes", "score"], ascending=[True, False]).itertuples():
        if row.score > best:
            best = row.score
            names.append(row.arm)
    return names


def collect_eos(results: Path) -> pd.DataFrame:
    """The summary of the study of ends."""
    return read_measured(results, EOS, "medv study eos")


def draw_eos(data: pd.DataFrame, results: Path) -> Figure:
    """Score, length and repetition of every arm, with intervals: one panel each, arms in common rows."""
    height = 0.75 + ROW * len(data)
    figure, axes = plt.subplots(
        1, len(_EOS_PANELS), figsize=(WIDTHS["page"], height), sharey=True, layout="constrained"
    )
    for ax, (name, label) in zip(axes, _EOS_PANELS.items(), strict=True):
        rows = data.rename(columns={name: "mean", f"{name}_low": "low", f"{name}_high": "high"})
        plot_forest(rows, "arm", ax=ax, xlabel=label)
    return figure


def collect_exactness(results: Path) -> pd.DataFrame:
    """Every comparison's report, one row a prompt."""
    return read_measured(results, EXACTNESS, "medv exactness")


def draw_exactness(data: pd.DataFrame, results: Path) -> Figure:
    """The largest drift of logits, and which prompts got other tokens."""
    ax = plot_exactness(data)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0)
    return ax.figure


def collect_ablations(results: Path) -> pd.DataFrame:
    """Every arm minus ours in the main scores."""
    table = read_measured(results, DIFFERENCES, "medv ablations")
    return table[(table.base == OURS) & table.score.isin(ABLATION_SCORES)].reset_index(drop=True)


def draw_ablations(data: pd.DataFrame, results: Path) -> Figure:
    """A forest: every arm minus ours with its interval over seeds, one panel a score."""
    height = 0.95 + 1.2 * ROW * data.arm.nunique()
    figure, axes = plt.subplots(
        1, len(ABLATION_SCORES), figsize=(WIDTHS["page"], height), sharey=True, layout="constrained"
    )
    for ax, score in zip(axes, ABLATION_SCORES, strict=True):
        plot_arms(data, score, ax=ax)
        ax.get_legend().remove()
        ax.grid(linewidth=0.4)
    axes[0].set_ylim(data.arm.nunique() - 0.5, -0.5)  # shared axes were turned over once each
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return figure


def plot_forest(data: pd.DataFrame, by: str, *, ax: Axes | None = None, xlabel: str = "") -> Axes:
    """Means with intervals, one row a name, the first on top.

    Args:
        data: rows of `by`, mean, low, high.
        by: column of the names.
        ax: where to draw; a new figure of column width by default.
        xlabel: what is measured.

    Returns:
        The Axes; its container holds the points in the order of the data.
    """
    ax = new_axes("column", 0.6 + ROW * len(data)) if ax is None else ax
    errors = [(data["mean"] - data["low"]).clip(lower=0), (data["high"] - data["mean"]).clip(lower=0)]
    places = range(len(data))
    ax.errorbar(
        data["mean"],
        places,
        xerr=errors,
        color=PALETTE["blue"],
        marker="o",
        markersize=3.5,
        linestyle="none",
        elinewidth=1,
    )
    ax.set_yticks(places, data[by])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.grid(linewidth=0.4)
    return ax


STUDY_FIGURES = (
    Exhibit(
        "frontier",
        "Which settings to pick: quality against forward passes",
        "Fact score of descriptions of phantoms against forward passes an answer, for every strategy, guard and cache; "
        "95 % intervals over questions. On the left those are named that none beats at as few passes, and the preset "
        "fast.",
        collect_frontier,
        draw_frontier,
        (FRONTIER,),
    ),
    Exhibit(
        "eos_study",
        "What suppressing the end of text does by itself",
        "Fact score, length and repetition with end tokens suppressed as in the reference, or free; with the official "
        "demo's suffix; in other dtypes. 95 % intervals over questions.",
        collect_eos,
        draw_eos,
        (EOS,),
    ),
    Exhibit(
        "exactness",
        "How far ways of running lie apart",
        "Largest difference of a logit between two ways of running the same prompts, one point a prompt; crosses where "
        "tokens differ. No difference at all is drawn at the left edge.",
        collect_exactness,
        draw_exactness,
        (EXACTNESS,),
    ),
    Exhibit(
        "ablation_forest",
        "Training ablations: every arm minus ours",
        "Differences in points, means over seeds with 95 % intervals, arms equal in steps and equal in compute.",
        collect_ablations,
        draw_ablations,
        (DIFFERENCES,),
    ),
)
