"""Tables 1 to 6 and 8: published rows, and ours below them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from medv_lab.paper.columns import ACCURACY, RECALL, TABLE_COLUMNS, Column
from medv_lab.paper.exhibits import Exhibit
from medv_lab.paper.measured import BENCHMARKS, SCORES, measured_open_ended, measured_steps, measured_vqa
from medv_lab.paper.published import TABLES, load_table, published_source
from medv_lab.paper.typeset import to_latex, to_markdown

PHANTOM_COLUMNS = tuple(
    Column(f"{name}_{kind}", f"{name} {kind}", better="high", digits=1, meaning=meaning)
    for name in BENCHMARKS
    for kind, meaning in (("open", RECALL), ("closed", ACCURACY))
)


@dataclass(frozen=True)
class Comparison:
    """A published table and what is measured beside it.

    Attributes:
        number: of the table.
        title: one line.
        caption: what is published, and what the measured rows are.
        measure: results folder to measured rows; None where nothing of ours has these columns.
        inputs: patterns of the results files it reads.
        added: columns that only the measured rows have.
    """

    number: int
    title: str
    caption: str
    measure: Callable[[Path], pd.DataFrame] | None = None
    inputs: tuple[str, ...] = ()
    added: tuple[Column, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns in print."""
        return (*TABLE_COLUMNS[self.number], *self.added)


COMPARISONS = (
    Comparison(
        1,
        "Open-ended biomedical conversation",
        "Table 1. Relative scores in percent of the reference's, as published (judge: GPT-4.1 mini), and those of the "
        "small world's systems on phantoms (judge: phantom facts; 95 % intervals over questions). The two share no "
        "scale.",
        measured_open_ended,
        (SCORES[1],),
    ),
    Comparison(
        2,
        "Downstream visual question answering",
        "Table 2. Open questions by token recall and closed ones by accuracy, percent, as published on three data "
        "sets, and ours on phantoms with 95 % intervals.",
        measured_vqa,
        (SCORES[2],),
        PHANTOM_COLUMNS,
    ),
    Comparison(
        3,
        "Length and time of answers",
        "Table 3. Seconds and words a question at falling numbers of steps Z: as published at L = 256, B = 64, and "
        "ours at L = 96, B = 32 on phantoms, one question at a time on one CPU core, scored by the judge that knows "
        "the facts.",
        measured_steps,
        (SCORES[3],),
    ),
    Comparison(4, "Training pipelines", "Table 4. Initialisations and stages, as published."),
    Comparison(
        5, "Inference settings", "Table 5. Overall open-ended score as L, Z or B is varied, as published."
    ),
    Comparison(6, "Training set-up", "Table 6. Hyper-parameters of every stage, as published."),
    Comparison(8, "Dataset statistics", "Table 8. Statistics of the VQA data sets, as published."),
)


def collect_table(comparison: Comparison, results: Path) -> pd.DataFrame:
    """Published rows, then measured ones; a measured column's interval follows the columns of the table."""
    published = load_table(comparison.number).assign(source=published_source(comparison.number))
    if comparison.measure is None:
        return published
    measured = comparison.measure(results)
    names = [column.name for column in comparison.columns]
    bounds = [f"{name}{end}" for name in names for end in ("_low", "_high") if f"{name}{end}" in measured]
    joined = pd.concat([published, measured], ignore_index=True) if len(measured) else published
    data = joined.reindex(columns=[*names, *bounds, "source"])
    whole = {column.name: "Int64" for column in comparison.columns if column.kind in ("key", "count")}
    return data.astype(whole)


def draw_table(comparison: Comparison, data: pd.DataFrame, results: Path) -> tuple[str, str]:
    """(Markdown, LaTeX) of what `collect_table` gave."""
    return (
        to_markdown(data, comparison.columns, comparison.caption),
        to_latex(data, comparison.columns, comparison.caption),
    )


PAPER_TABLES = tuple(
    Exhibit(
        TABLES[one.number],
        one.title,
        one.caption,
        partial(collect_table, one),
        partial(draw_table, one),
        one.inputs,
        "table",
    )
    for one in COMPARISONS
)
