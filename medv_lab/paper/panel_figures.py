"""Figures 2 to 12: which questions, systems and settings of a panels folder each of them shows."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medv_lab.paper.exhibits import Exhibit, MissingResults, measured_source
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
from medv_lab.studies.panels import REPETITION, PanelAnswer
from medv_lab.views.sheet import Sheet
from medv_lab.views.study_plots import plot_curves
from medv_lab.views.style import WIDTHS

MOST_SYSTEMS = 3
PER_DOMAIN = 2
SHOWN = ("description-00", "description-03")  # of Figure 2: a radiograph and a histology image
REPEATING = "description-01"  # of Figures 5, 11 and 12
METRIC = "adjacent_duplicates"
_ADJACENT = "adjacent duplicates"
_LABELS = {"Z": "sampling steps Z", "L": "generation length L = Z", "B": "block length B"}
LEFT, BETWEEN, ABOVE, BELOW, PLOT_HEIGHT = 42, 10, 16, 28, 92  # points around and of a plot
_MARKED = (
    "Blue and bold: a claim that the picture bears out; vermillion and underlined: one that it does not. "
    "The claims are found and checked by program."
)
_OURS = "Our panel of this kind on phantoms; the original's caption was not available to us."


def at_length(answers: Sequence[PanelAnswer]) -> list[PanelAnswer]:
    """Return the answers of every system's main run."""
    return [one for one in answers if "main" in one.parts]


def first_systems(answers: Sequence[PanelAnswer], most: int = MOST_SYSTEMS) -> list[PanelAnswer]:
    """Choose the answers of the first few systems, each question's together."""
    systems = list(dict.fromkeys(one.prediction.system for one in answers))[:most]
    kept = [one for one in answers if one.prediction.system in systems]
    order = list(dict.fromkeys(one.question.id for one in kept))
    return sorted(kept, key=lambda one: order.index(one.question.id))


def collect_open_ended(results: Path) -> pd.DataFrame:
    """Collect Figure 2: two descriptions by up to three systems."""
    chosen = [one for one in at_length(read_answers(results)) if one.question.id in SHOWN]
    return tabulate(first_systems(chosen), results, mark_facts)


def collect_vqa(results: Path) -> pd.DataFrame:
    """Collect Figure 3: short questions at L = B = Z = 64."""
    chosen = [one for one in read_answers(results) if one.question.kind == "vqa"]
    return tabulate(first_systems(chosen), results, mark_facts)


def collect_same_length(results: Path) -> pd.DataFrame:
    """Collect Figure 4: two queries, answered by the diffusion and the autoregressive model."""
    chosen = [
        one
        for one in at_length(read_answers(results))
        if one.question.kind == "query" and one.prediction.system in ("diffusion", "twin")
    ]
    return tabulate(first_systems(chosen), results, mark_facts)


def collect_settings(results: Path) -> pd.DataFrame:
    """Collect Figure 5: one description under several settings, by V1 and V2 where they answered, else by diffusion."""
    answers = [one for one in read_answers(results) if one.question.id == REPEATING]
    wanted = [one for one in answers if one.prediction.system in ("V1", "V2")] or [
        one for one in answers if one.prediction.system == "diffusion"
    ]
    long, by_steps, _, by_block = _sweeps(wanted)
    chosen = [*long, *(one for one in by_steps if one.lengths[2] in _spread(by_steps, 2))]
    chosen += [one for one in by_block if one.lengths[1] == one.lengths[0]]
    return tabulate(chosen, results, mark_repetition)


def collect_domain(domain: str, results: Path) -> pd.DataFrame:
    """Collect Figures 6 to 10: the first descriptions of a domain by up to three systems."""
    chosen = [
        one
        for one in at_length(read_answers(results))
        if one.question.tags["domain"] == domain and one.question.kind == "description"
    ]
    shown = sorted({one.question.id for one in chosen})[:PER_DOMAIN]
    return tabulate(first_systems([one for one in chosen if one.question.id in shown]), results, mark_facts)


def collect_by_steps(results: Path) -> pd.DataFrame:
    """Collect Figure 11: repetition of every system against Z, and one description at three of them."""
    answers = [
        one
        for one in read_answers(results)
        if one.question.id == REPEATING and one.prediction.system == "diffusion"
    ]
    long, by_steps, _, _ = _sweeps(answers)
    texts = tabulate(
        [*long, *(one for one in by_steps if one.lengths[2] in _spread(by_steps, 2))],
        results,
        mark_repetition,
    )
    curves = _read_repetition(results)
    length, block, _ = long[0].lengths
    chosen = curves[(length == curves.L) & (block == curves.B)]
    return _join([("Z", chosen)], texts, results)


def collect_by_lengths(results: Path) -> pd.DataFrame:
    """Collect Figure 12: repetition of every system against L (with Z = L) and B, and one description at each end."""
    answers = [
        one
        for one in read_answers(results)
        if one.question.id == REPEATING and one.prediction.system == "diffusion"
    ]
    long, _, by_length, by_block = _sweeps(answers)
    ends = [one for one in by_length if one.lengths[0] == min(other.lengths[0] for other in by_length)]
    ends += [one for one in by_block if one.lengths[1] in _ends(by_block)]
    curves = _read_repetition(results)
    length, _, steps = long[0].lengths
    sweep_block = by_length[0].lengths[1]
    against_length = curves[(curves.L == curves.Z) & (sweep_block == curves.B)]
    against_block = curves[(length == curves.L) & (steps == curves.Z)]
    return _join(
        [("L", against_length), ("B", against_block)], tabulate(ends, results, mark_repetition), results
    )


def draw_curves_and_texts(data: pd.DataFrame, results: Path) -> Figure:
    """Draw a column: one plot for every quantity that was varied, then the marked answers."""
    sheet = Sheet(WIDTHS["column"])
    curves, texts = data[data.part != "answer"], data[data.part == "answer"]
    parts = list(dict.fromkeys(curves.part))
    highest = 1.05 * float(curves.high.max())
    width = (sheet.width - LEFT - len(parts) * BETWEEN) / len(parts)
    for number, part in enumerate(parts):

        def draw(ax: Axes, part: str = part, is_first: bool = not number) -> None:
            rows = curves[curves.part == part]
            plot_curves(rows, part, ax=ax, xlabel=_LABELS[part], ylabel=_ADJACENT, is_falling=part == "Z")
            ax.set_ylim(0, highest)
            if not is_first:
                ax.set_ylabel("")
                ax.tick_params(axis="y", labelleft=False)
                if ax.get_legend() is not None:
                    ax.get_legend().remove()

        sheet.plot(draw, LEFT + number * (width + BETWEEN), ABOVE, width, PLOT_HEIGHT)
    sheet.bottom += BELOW
    for _, rows in texts.groupby("item", sort=False):
        put_item(sheet, rows, results, with_reference=False)
        put_answers(sheet, rows)
    return sheet.finish()


def draw_settings(data: pd.DataFrame, results: Path) -> Figure:
    """Draw columns of systems where there are several, else one column."""
    draw = draw_stacked if data.system.nunique() == 1 else draw_side_by_side
    return draw(data, results, with_reference=False)


def _sweeps(answers: Sequence[PanelAnswer]) -> tuple[list[PanelAnswer], ...]:
    """Return the main run, all over Z at its L and B, all over L with Z = L and one B, all over B at its L and Z."""
    if not answers:
        raise MissingResults(f"{FOLDER}/ lacks {REPEATING} by a diffusion model; make it with '{COMMAND}'")
    return tuple(
        [one for one in answers if part in one.parts] for part in ("main", "steps", "lengths", "blocks")
    )


def _spread(answers: Sequence[PanelAnswer], count: int) -> list[int]:
    """Choose `count` numbers of steps below the most: the least, and others evenly apart in order."""
    steps = sorted({one.lengths[2] for one in answers})[:-1]
    return steps[:: max(1, len(steps) // count)][:count]


def _ends(answers: Sequence[PanelAnswer]) -> set[int]:
    blocks = [one.lengths[1] for one in answers]
    return {min(blocks), max(blocks)}


def _read_repetition(results: Path) -> pd.DataFrame:
    path = results / FOLDER / REPETITION
    if not path.is_file():
        raise MissingResults(f"{FOLDER}/{REPETITION} is not there; make it with '{COMMAND}'")
    table = pd.read_csv(path, dtype={"L": "Int64", "B": "Int64", "Z": "Int64"})
    return table[(table.metric == METRIC) & table.Z.notna()]


def _join(curves: Sequence[tuple[str, pd.DataFrame]], texts: pd.DataFrame, results: Path) -> pd.DataFrame:
    source = measured_source(results / FOLDER / REPETITION, results)
    parts = [rows.assign(part=part, source=source) for part, rows in curves]
    return pd.concat([*parts, texts.assign(part="answer")], ignore_index=True)


def _panel(
    name: str,
    title: str,
    caption: str,
    collect: Callable[[Path], pd.DataFrame],
    draw: Callable[[pd.DataFrame, Path], Figure],
) -> Exhibit:
    return Exhibit(name, title, caption, collect, draw)


PANEL_FIGURES = (
    _panel(
        "fig02_open_ended",
        "Open-ended answers side by side",
        f"Two phantoms described by our systems. {_MARKED}",
        collect_open_ended,
        draw_side_by_side,
    ),
    _panel(
        "fig03_vqa",
        "Visual question answering at L = B = Z = 64",
        "Three questions as the paper asks them of VQA-RAD (open), SLAKE (open) and PathVQA (closed), here of a "
        f"radiograph, a CT slice and a histology image among our phantoms. {_MARKED}",
        collect_vqa,
        draw_stacked,
    ),
    _panel(
        "fig04_same_length",
        "The same maximum length, from left to right and by unmasking",
        f"Two queries, each answered with the same maximum length by both kinds of model. {_MARKED}",
        collect_same_length,
        draw_stacked,
    ),
    _panel(
        "fig05_repetition",
        "Repetition under several settings",
        "One phantom described under several settings; red and bold: what is said twice or more in a row. The paper "
        "shows V1 (a general-domain start, fine-tuned) and V2 (the same, aligned first); where the results hold no "
        "answers of theirs, the diffusion model's are shown.",
        collect_settings,
        draw_settings,
    ),
    *(
        _panel(
            f"fig{number:02d}_{domain.replace(' ', '_').replace('-', '_')}",
            f"Answers to pictures of the domain {domain}",
            f"{_OURS} {_MARKED}",
            partial(collect_domain, domain),
            draw_stacked,
        )
        for number, domain in enumerate(DOMAINS, 6)
    ),
    _panel(
        "fig11_repetition_steps",
        "Repetition against the number of steps",
        f"Share of neighbouring words that are equal, with 95 % intervals over questions. {_OURS}",
        collect_by_steps,
        draw_curves_and_texts,
    ),
    _panel(
        "fig12_repetition_lengths",
        "Repetition against answer and block length",
        f"Share of neighbouring words that are equal, with 95 % intervals over questions. {_OURS}",
        collect_by_lengths,
        draw_curves_and_texts,
    ),
)
