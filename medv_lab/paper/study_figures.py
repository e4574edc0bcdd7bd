"""Beyond the paper: the frontier of quality and speed, the study of ends, exactness, ablations, and an unmasking."""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.metrics.intervals import supported_digits
from medv_lab.paper.exhibits import Exhibit, MissingResults, measured_source, read_measured
from medv_lab.studies.panels import QUESTIONS, TRACE, read_questions
from medv_lab.views.animation import save_gif
from medv_lab.views.caption import make_caption
from medv_lab.views.study_plots import FOREST_ROW, plot_exactness, plot_forest, plot_frontier, unbeaten
from medv_lab.views.style import SMALLEST_FONT, WIDTHS
from medv_lab.views.trace_plots import plot_unmasking
from medv_lab.views.training_plots import plot_arms

PANELS = "panels"
TRACE_FILE = f"{PANELS}/{TRACE}"
EOS_PANELS = {"score": "fact score", "words": "words", "adjacent_duplicates": "adjacent duplicates"}
ABLATION_SCORES = ("facts", "open", "closed")


def draw_frontier(data: pd.DataFrame, results: Path) -> Figure:
    """Draw fact score against forward passes, naming those that none beats at less or equal cost; and all in rows."""
    size = (WIDTHS["page"], 1.05 + 0.8 * FOREST_ROW * len(data))
    figure, (points, rows) = plt.subplots(1, 2, figsize=size, layout="constrained", width_ratios=(1.5, 1))
    plot_frontier(data, ax=points, names=[*unbeaten(data), "fast"])
    points.get_legend().remove()
    figure.legend(*points.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    points.grid(linewidth=0.4)
    points.set_title(state_claim(data), loc="left", fontsize=SMALLEST_FONT)
    in_order = data.sort_values(["passes", "score"], ascending=[True, False])
    plot_forest(in_order, "arm", "score", ax=rows, xlabel="fact score; fewest passes on top")
    rows.yaxis.tick_right()
    return figure


def state_claim(data: pd.DataFrame) -> str:
    """Say what `fast` keeps of the exact sampler's score, on descriptions that had no part in choosing it."""
    if "confirmed" not in data or "fast" not in set(data.arm):  # of an earlier version, or without the preset
        return ""
    row = data.set_index("arm").loc["fast"]
    found = 100 * row[["confirmed", "confirmed_low", "confirmed_high"]].astype(float)
    digits = supported_digits(found.confirmed_low, found.confirmed_high, most=1)
    kept, low, high = (f"{value:.{digits}f}" for value in found)
    return f"fast keeps {kept} % [{low}, {high}] of the exact score on the half that did not choose it"


def draw_eos(data: pd.DataFrame, results: Path) -> Figure:
    """Draw score, length and repetition of every arm, with intervals: one panel each, arms in common rows."""
    size = (WIDTHS["page"], 0.75 + FOREST_ROW * len(data))
    figure, axes = plt.subplots(1, len(EOS_PANELS), figsize=size, sharey=True, layout="constrained")
    for ax, (name, label) in zip(axes, EOS_PANELS.items(), strict=True):
        plot_forest(data, "arm", name, ax=ax, xlabel=label)
    return figure


def collect_ablations(results: Path) -> pd.DataFrame:
    """Read every arm minus its base in the main scores."""
    table = read_measured(results, "ablations/differences.csv", "medv ablations")
    return table[table.score.isin(ABLATION_SCORES)].reset_index(drop=True)


def draw_ablations(data: pd.DataFrame, results: Path) -> Figure:
    """Draw a forest: every arm minus its base with its interval and seeds, one panel per score."""
    rows = len(data[["arm", "base"]].drop_duplicates())
    size = (WIDTHS["page"], 0.95 + 1.2 * FOREST_ROW * rows)
    figure, axes = plt.subplots(1, len(ABLATION_SCORES), figsize=size, sharey=True, layout="constrained")
    for ax, score in zip(axes, ABLATION_SCORES, strict=True):
        plot_arms(data, score, ax=ax)
        ax.get_legend().remove()
        ax.grid(linewidth=0.4)
    axes[0].set_ylim(rows - 0.5, -0.5)  # shared axes were turned over once each
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return figure


def collect_unmasking(results: Path) -> pd.DataFrame:
    """Read the commits of the trace that a panels folder keeps, one row per commit."""
    path = results / TRACE_FILE
    if not path.is_file():
        raise MissingResults(f"{TRACE_FILE} is not there; make it with 'medv panels'")
    return SampleTrace.load(path).to_frame().assign(source=measured_source(path, results))


def draw_unmasking(data: pd.DataFrame, results: Path) -> Figure:
    """Draw the answer as a grid of tokens, coloured by the pass that committed each."""
    return plot_unmasking(SampleTrace.load(results / TRACE_FILE)).figure


def animate_unmasking(results: Path, path: Path) -> None:
    """Write the answer as it fills up beside its picture, with what was asked of which model."""
    trace = SampleTrace.load(results / TRACE_FILE)
    asked, *_ = read_questions(results / PANELS / QUESTIONS)  # the trace is of the first question
    settings = GenerationSettings.from_dict(trace.manifest["settings"])
    caption = make_caption(asked.text, f"a phantom, {asked.tags['domain']}", settings, trace.manifest)
    save_gif(trace, path, caption, Image.open(asked.image))


STUDY_FIGURES = (
    Exhibit(
        "frontier",
        "Which settings to pick: quality against forward passes",
        "Fact score of descriptions of phantoms against the forward passes that an answer took on average, for every "
        "strategy, guard and cache; 95 % intervals over questions. On the left those are named that none beats at as "
        "few passes, and the preset fast, which was chosen on every other description: what it keeps is reported on "
        "those between.",
        partial(read_measured, name="studies/frontier/summary.csv", command="medv study frontier"),
        draw_frontier,
    ),
    Exhibit(
        "eos_study",
        "What suppressing the end of text does by itself",
        "Fact score, length and repetition with end tokens suppressed as in the reference, or free; with the official "
        "demo's suffix; in other dtypes. 95 % intervals over questions.",
        partial(read_measured, name="studies/eos/summary.csv", command="medv study eos"),
        draw_eos,
    ),
    Exhibit(
        "exactness",
        "How far ways of running lie apart",
        "Largest difference of a logit between two ways of running the same prompts, one point per prompt; crosses "
        "where tokens differ. No difference at all is drawn at the left edge.",
        partial(read_measured, name="studies/exactness/scores.csv", command="medv exactness"),
        lambda data, results: plot_exactness(data).figure,
    ),
    Exhibit(
        "ablation_forest",
        "Training ablations: every arm minus ours",
        "Differences in points: every seed as a dot, means with 95 % intervals over seeds and questions (none for "
        "fewer than 5 seeds), arms equal in steps and equal in compute.",
        collect_ablations,
        draw_ablations,
    ),
    Exhibit(
        "unmasking_example",
        "How one answer fills up",
        "A description of a phantom, each token coloured by the forward pass that committed it; what lies behind the "
        "end of the answer is faded.",
        collect_unmasking,
        draw_unmasking,
        animate=animate_unmasking,
    ),
)
