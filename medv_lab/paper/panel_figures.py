"""Figures 2 to 12: which questions, systems and settings of a panels folder each of them shows."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from medv_lab.paper.exhibits import Exhibit, MissingResults, read_measured
from medv_lab.paper.panel_sheets import (
    COMMAND,
    FOLDER,
    draw_side_by_side,
    draw_stacked,
    mark_facts,
    mark_repetition,
    put_answers,
    put_item,
    read_answers,
    tabulate,
)
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.studies.panels import PARTS, REPETITION, PanelAnswer
from medv_lab.views.sheet import Sheet
from medv_lab.views.study_plots import plot_curves
from medv_lab.views.style import WIDTHS

MOST_SYSTEMS = 3
SHOWN = ("description-00", "description-03")  # of Figure 2: a radiograph and a histology image
REPEATING = "description-01"  # of Figures 5, 11 and 12
METRIC = "adjacent_duplicates"
_ADJACENT = "adjacent duplicates"
_LABELS = {"Z": "sampling steps Z", "L": "generation length L = Z", "B": "block length B"}
LEFT, BETWEEN, ABOVE, BELOW, PLOT_HEIGHT = 42, 10, 16, 28, 92  # points around and of a plot
_MARKED = (
    "Blue and bold: a claim that the picture bears out; vermillion and underlined: one that it does not. "
    "The claims are found and checked by program, clause by clause: one that is not well-formed, or says again what an "
    "earlier one said, has none."
)
_OURS = "Our panel of this kind on phantoms; the original's caption was not available to us."


def first_systems(answers: Sequence[PanelAnswer]) -> list[PanelAnswer]:
    """Choose the answers of the first few systems, each question's together."""
    systems = list(dict.fromkeys(one.prediction.system for one in answers))[:MOST_SYSTEMS]
    order = list(dict.fromkeys(one.question.id for one in answers))
    kept = [one for one in answers if one.prediction.system in systems]
    return sorted(kept, key=lambda one: order.index(one.question.id))


def collect_facts(is_shown: Callable[[PanelAnswer], bool], results: Path) -> pd.DataFrame:
    """Collect some answers of up to three systems, with what is right and wrong in them."""
    chosen = [one for one in read_answers(results) if is_shown(one)]
    return tabulate(first_systems(chosen), results, mark_facts)


def collect_domain(domain: str, results: Path) -> pd.DataFrame:
    """Collect Figures 6 to 10: the first two descriptions of a domain."""
    data = collect_facts(
        lambda one: (
            "main" in one.parts
            and one.question.kind == "description"
            and one.question.tags["domain"] == domain
        ),
        results,
    )
    return data[data.item.isin(("A", "B"))]


def collect_settings(results: Path) -> pd.DataFrame:
    """Collect Figure 5: one description under several settings, by V1 and V2 where they answered, else by diffusion."""
    systems = {one.prediction.system for one in read_answers(results)}
    sweeps = _read_sweeps(results, systems & {"V1", "V2"} or {"diffusion"})
    chosen = [*sweeps["main"], *_spread(sweeps["steps"])]
    chosen += [one for one in sweeps["blocks"] if one.lengths[1] == one.lengths[0]]
    return tabulate(chosen, results, mark_repetition)


def collect_by_steps(results: Path) -> pd.DataFrame:
    """Collect Figure 11: repetition of every system against Z, and one description at three of them."""
    sweeps, curves = _read_sweeps(results, {"diffusion"}), _read_repetition(results)
    length, block, _ = sweeps["main"][0].lengths
    shown = curves[(length == curves.L) & (block == curves.B)].assign(part="Z")
    texts = tabulate([*sweeps["main"], *_spread(sweeps["steps"])], results, mark_repetition)
    return pd.concat([shown, texts.assign(part="answer")], ignore_index=True)


def collect_by_lengths(results: Path) -> pd.DataFrame:
    """Collect Figure 12: repetition of every system against L (with Z = L) and B, and one description at each end."""
    sweeps, curves = _read_sweeps(results, {"diffusion"}), _read_repetition(results)
    length, _, steps = sweeps["main"][0].lengths
    lengths = [one.lengths[0] for one in sweeps["lengths"]]
    blocks = [one.lengths[1] for one in sweeps["blocks"]]
    ends = [one for one in sweeps["lengths"] if one.lengths[0] == min(lengths)]
    ends += [one for one in sweeps["blocks"] if one.lengths[1] in (min(blocks), max(blocks))]
    same_block = sweeps["lengths"][0].lengths[1] == curves.B
    parts = [
        curves[(curves.L == curves.Z) & same_block].assign(part="L"),
        curves[(length == curves.L) & (steps == curves.Z)].assign(part="B"),
        tabulate(ends, results, mark_repetition).assign(part="answer"),
    ]
    return pd.concat(parts, ignore_index=True)


def draw_curves_and_texts(data: pd.DataFrame, results: Path) -> Figure:
    """Draw a column: one plot for every quantity that was varied, then the marked answers."""
    sheet = Sheet(WIDTHS["column"])
    curves, texts = data[data.part != "answer"], data[data.part == "answer"]
    parts = list(dict.fromkeys(curves.part))
    highest = 1.05 * float(curves.high.max())
    width = (sheet.width - LEFT - len(parts) * BETWEEN) / len(parts)
    for number, part in enumerate(parts):
        ax = sheet.plot(LEFT + number * (width + BETWEEN), ABOVE, width, PLOT_HEIGHT)
        rows = curves[curves.part == part]
        plot_curves(rows, part, ax=ax, xlabel=_LABELS[part], ylabel=_ADJACENT, is_falling=part == "Z")
        ax.set_ylim(0, highest)
        if number:
            ax.set_ylabel("")
            ax.tick_params(axis="y", labelleft=False)
            if ax.get_legend() is not None:
                ax.get_legend().remove()
    sheet.bottom += BELOW
    for _, rows in texts.groupby("item", sort=False):
        put_item(sheet, rows, results, with_reference=False)
        put_answers(sheet, rows)
    return sheet.finish()


def draw_settings(data: pd.DataFrame, results: Path) -> Figure:
    """Draw columns of systems where there are several, else one column."""
    draw = draw_stacked if data.system.nunique() == 1 else draw_side_by_side
    return draw(data, results, with_reference=False)


def _read_sweeps(results: Path, systems: Collection[str]) -> dict[str, list[PanelAnswer]]:
    """Read some systems' answers to the question that is repeated at every setting, by the part of the plan."""
    answers = [one for one in read_answers(results) if one.prediction.system in systems]
    answers = [one for one in answers if one.question.id == REPEATING]
    if not answers:
        raise MissingResults(f"{FOLDER}/ lacks {REPEATING} by a diffusion model; make it with '{COMMAND}'")
    return {part: [one for one in answers if part in one.parts] for part in PARTS}


def _spread(answers: Sequence[PanelAnswer]) -> list[PanelAnswer]:
    """Choose the answers in two numbers of steps below the most: the least, and one half-way in order."""
    steps = sorted({one.lengths[2] for one in answers})[:-1]
    chosen = steps[:: max(1, len(steps) // 2)][:2]
    return [one for one in answers if one.lengths[2] in chosen]


def _read_repetition(results: Path) -> pd.DataFrame:
    whole = {"L": "Int64", "B": "Int64", "Z": "Int64"}
    table = read_measured(results, f"{FOLDER}/{REPETITION}", COMMAND, dtype=whole)
    table.insert(table.columns.get_loc("source"), "part", "")
    return table[(table.metric == METRIC) & table.Z.notna()]


PANEL_FIGURES = (
    Exhibit(
        "fig02_open_ended",
        "Open-ended answers side by side",
        f"Two phantoms described by our systems. {_MARKED}",
        partial(collect_facts, lambda one: "main" in one.parts and one.question.id in SHOWN),
        draw_side_by_side,
    ),
    Exhibit(
        "fig03_vqa",
        "Visual question answering at L = B = Z = 64",
        "Three questions as the paper asks them of VQA-RAD (open), SLAKE (open) and PathVQA (closed), here of a "
        f"radiograph, a CT slice and a histology image among our phantoms. {_MARKED}",
        partial(collect_facts, lambda one: one.question.kind == "vqa"),
        draw_stacked,
    ),
    Exhibit(
        "fig04_same_length",
        "The same maximum length, from left to right and by unmasking",
        "Two queries, each answered with the same maximum length by masked diffusion and, where the results hold "
        f"its answers, by the left-to-right twin. {_MARKED}",
        partial(
            collect_facts,
            lambda one: one.question.kind == "query" and one.prediction.system in ("diffusion", "twin"),
        ),
        draw_stacked,
    ),
    Exhibit(
        "fig05_repetition",
        "Repetition under several settings",
        "One phantom described under several settings; red and bold: what is said twice or more in a row. The paper "
        "shows V1 (a general-domain start, fine-tuned) and V2 (the same, aligned first); where the results hold no "
        "answers of theirs, the diffusion model's are shown.",
        collect_settings,
        draw_settings,
    ),
    *(
        Exhibit(
            f"fig{number:02d}_{domain.replace(' ', '_').replace('-', '_')}",
            f"Answers to pictures of the domain {domain}",
            f"{_OURS} {_MARKED}",
            partial(collect_domain, domain),
            draw_stacked,
        )
        for number, domain in enumerate(DOMAINS, 6)
    ),
    Exhibit(
        "fig11_repetition_steps",
        "Repetition against the number of steps",
        f"Share of neighbouring words that are equal, with 95 % intervals over questions. {_OURS}",
        collect_by_steps,
        draw_curves_and_texts,
    ),
    Exhibit(
        "fig12_repetition_lengths",
        "Repetition against answer and block length",
        f"Share of neighbouring words that are equal, with 95 % intervals over questions. {_OURS}",
        collect_by_lengths,
        draw_curves_and_texts,
    ),
)
