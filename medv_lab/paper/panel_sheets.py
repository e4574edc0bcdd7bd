"""Qualitative panels: picture, question, reference and answers with marked words, drawn from a panels folder.

They are our panels of the kinds that the paper's figures show. The captions of its appendix figures were not
available to us, and ours say what is drawn instead.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from medv_lab.paper.exhibits import MissingResults, measured_source
from medv_lab.phantoms.facts import mark_claims
from medv_lab.phantoms.scenes import Scene
from medv_lab.studies.panels import PanelAnswer, read_panels
from medv_lab.views.highlights import cut_text, highlight_repetition
from medv_lab.views.sheet import MARGIN, TEXT_SIZE, Parts, Sheet
from medv_lab.views.style import WIDTHS

FOLDER = "panels"
COMMAND = "medv panels"
SYSTEMS = ("diffusion", "twin", "V1", "V2", "ours")  # in the order of columns and rows
SYSTEM_TITLES = {
    "diffusion": "masked diffusion",
    "twin": "left-to-right twin, of the ablations",
    "ours": "ours, of the ablations",
}
PICTURE = 56  # points
GAP = 5


def read_answers(results: Path) -> list[PanelAnswer]:
    """Read all answers of the results folder's panels, systems in one order everywhere.

    Raises:
        MissingResults: if there are none.
    """
    if not (results / FOLDER / "manifest.json").is_file():
        raise MissingResults(f"{FOLDER}/ has no answers; make them with '{COMMAND}'")
    answers = read_panels(results / FOLDER)
    order = [*SYSTEMS, *sorted({one.prediction.system for one in answers} - set(SYSTEMS))]
    return sorted(answers, key=lambda one: order.index(one.prediction.system))


def tabulate(
    answers: Sequence[PanelAnswer], results: Path, mark: Callable[[PanelAnswer], list]
) -> pd.DataFrame:
    """Make the frame of a panel: one row per answer, items lettered in order of their questions.

    Raises:
        MissingResults: if nothing was chosen.
    """
    if not answers:
        raise MissingResults(f"{FOLDER}/ lacks the answers that are shown here; make them with '{COMMAND}'")
    letters = dict(zip(dict.fromkeys(one.question.id for one in answers), ascii_uppercase, strict=False))
    rows = []
    for one in answers:
        question, length, block, steps = one.question, *one.lengths
        row = {"item": letters[question.id], "domain": question.tags["domain"], "question": question.text}
        row |= {"reference": question.reference, "picture": question.image.relative_to(results).as_posix()}
        row |= {"system": one.prediction.system, "L": length, "B": block, "Z": steps}
        row |= {"answer": one.prediction.text, "words": one.prediction.words, "marks": json.dumps(mark(one))}
        rows.append(row | {"source": measured_source(results / FOLDER / one.file, results)})
    return pd.DataFrame(rows).astype({"L": "Int64", "B": "Int64", "Z": "Int64"})


def mark_facts(one: PanelAnswer) -> list[list]:
    """Mark [start, end, mark] what is right and wrong in an answer.

    A short answer is right as a whole if it has every word of the reference. Of a longer one, claims are checked
    where the scene is known, and phrases that are true are looked for where it is not.
    """
    question, answer = one.question, one.prediction.text
    if question.kind == "vqa":
        wanted, said = (set(re.findall(r"[\w-]+", text.lower())) for text in (question.reference, answer))
        return [[0, len(answer), "right" if wanted <= said else "wrong"]]
    if isinstance(question.truth, Scene):
        claims = mark_claims(answer, question.truth)
        return [[start, end, "right" if is_true else "wrong"] for start, end, is_true in claims]
    text, marks = answer.lower(), []
    for phrase in question.truth:
        start = text.find(phrase.lower())
        if start >= 0 and not any(start < end and begin < start + len(phrase) for begin, end, _ in marks):
            marks.append([start, start + len(phrase), "right"])
    return sorted(marks)


def mark_repetition(one: PanelAnswer) -> list[list]:
    """Mark [start, end, mark] what an answer says twice in a row."""
    return [[start, end, "repeated"] for start, end in highlight_repetition(one.prediction.text).spans]


def marked_parts(row: NamedTuple) -> Parts:
    """Cut the answer of a row where its marks begin and end."""
    return cut_text(row.answer, json.loads(row.marks))


def draw_stacked(data: pd.DataFrame, results: Path, with_reference: bool = True) -> Figure:
    """Draw a column: each item's picture, question and reference, and below it the answers one after the other."""
    sheet = Sheet(WIDTHS["column"])
    for _, rows in data.groupby("item", sort=False):
        put_item(sheet, rows, results, with_reference)
        put_answers(sheet, rows)
        sheet.bottom += GAP
    return sheet.finish()


def draw_side_by_side(data: pd.DataFrame, results: Path, with_reference: bool = True) -> Figure:
    """Draw a page: each item over rows of answers, one column for every system; a row has answers of like settings."""
    sheet = Sheet(WIDTHS["page"])
    columns = list(dict.fromkeys(data.system))
    width = (sheet.width - 2 * MARGIN - (len(columns) - 1) * 2 * GAP) / len(columns)
    for _, rows in data.groupby("item", sort=False):
        put_item(sheet, rows, results, with_reference)
        for number in range(int(rows.groupby("system").size().max())):
            line = rows.groupby("system", sort=False).nth(number)
            top = sheet.bottom + GAP / 2
            for row in line.itertuples():
                left = MARGIN + columns.index(row.system) * (width + 2 * GAP)
                below = sheet.write([(SYSTEM_TITLES.get(row.system, row.system), "label")], left, top, width)
                below = sheet.write([(describe_answer(row), "quiet")], left, below, width)
                sheet.write(marked_parts(row), left, below, width)
        sheet.bottom += GAP
    return sheet.finish()


def put_item(sheet: Sheet, rows: pd.DataFrame, results: Path, with_reference: bool = True) -> None:
    """Put an item's letter, picture, question and reference at the bottom of a sheet."""
    row = rows.iloc[0]
    top, left = sheet.bottom + GAP, MARGIN
    if sheet.bottom > MARGIN:
        sheet.rule(top - GAP / 2)
    with Image.open(results / row.picture) as picture:
        sheet.show(np.asarray(picture.convert("RGB")), left, top, PICTURE)
    beside = left + PICTURE + GAP
    width = sheet.width - beside - MARGIN
    below = sheet.write([(f"{row['item']}  ", "label"), (row.domain, "quiet")], beside, top, width)
    below = sheet.write([("Question: ", "label"), (row.question, "")], beside, below, width)
    if with_reference:
        sheet.write([("Reference: ", "label"), (row.reference, "quiet")], beside, below, width)


def put_answers(sheet: Sheet, rows: pd.DataFrame) -> None:
    """Put answers at the bottom of a sheet, each over the whole width under who gave it."""
    width = sheet.width - 2 * MARGIN
    for row in rows.itertuples():
        parts = [
            (SYSTEM_TITLES.get(row.system, row.system), "label"),
            (f" ({describe_answer(row)}): ", "quiet"),
        ]
        parts += marked_parts(row)
        sheet.write(parts, MARGIN, sheet.bottom + 0.35 * TEXT_SIZE, width)


def describe_answer(row: NamedTuple) -> str:
    """Describe the settings of an answer, and how long it is."""
    lengths = f"L = {int(row.L)}" if pd.isna(row.Z) else f"L = {row.L}, B = {row.B}, Z = {row.Z}"
    return f"{lengths}; {int(row.words)} word{'s' if row.words != 1 else ''}"
