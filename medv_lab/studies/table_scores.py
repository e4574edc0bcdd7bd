"""Scores of Tables 1, 2 and 3 in the small world, from answers alone: with intervals, and paired differences.

Answers are lines of `answers.jsonl` (see `tables`). Whatever is compared was asked the same questions; intervals are
over questions. Systems stay in the order of their lines; those in `BASES` are compared with all that follow them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from medv_lab.evaluation.judges import OverlapJudge, Verdict, compare_verdicts, summarise_verdicts
from medv_lab.metrics.intervals import Interval, bootstrap_interval, paired_difference
from medv_lab.metrics.scoring import Script, VqaItem, closed_hit, token_recall
from medv_lab.phantoms.conversation import (
    KINDS_OF_QUESTION,
    PhantomQuestion,
    conversation_cases,
    fact_judge,
    make_conversation,
)
from medv_lab.phantoms.partition import BENCHMARKS, benchmark_items, make_benchmarks
from medv_lab.phantoms.scenes import DOMAINS

GROUPS = ("all", *KINDS_OF_QUESTION)
BASES = ("diffusion", "ours")
INTERVAL = ("estimate", "low", "high")
DIFFERENCES = {
    1: ("system", "minus", "judge", "group", "questions", *INTERVAL),
    2: ("system", "minus", "benchmark", "kind", "questions", *INTERVAL),
    3: ("system", "steps", "minus_steps", "group", "questions", *INTERVAL),
}

Line = Mapping[str, Any]
Frames = tuple[pd.DataFrame, pd.DataFrame]  # scores, differences


@dataclass(frozen=True)
class TableRun:
    """What is asked.

    Attributes:
        pictures: of the open-ended benchmark (Tables 1 and 3), a multiple of 5.
        rounds: of balanced questions in each VQA benchmark (Table 2).
        steps: Z of Table 3, the most first; Table 1 uses the first.
    """

    pictures: int = 30
    rounds: int = 4
    steps: tuple[int, ...] = (96, 48, 24, 12, 6)


def score_table(number: int, run: TableRun, lines: Sequence[Line]) -> Frames:
    """Scores and differences of a table.

    Args:
        number: 1, 2 or 3.
        run: what was asked.
        lines: one an answer, with system, id and answer; of Table 3 also steps, words, seconds and passes.

    Returns:
        Scores: Table 1 by system, judge and group, Table 2 by system, benchmark and kind (recall of open questions,
        accuracy of closed ones, in percent), Table 3 by system, steps, group and quantity. Differences in the columns
        `DIFFERENCES`.

    Raises:
        ValueError: if a system answered other questions than those of the run.
    """
    scores, differences = {1: _conversation, 2: _vqa, 3: _steps}[number](run, lines)
    return pd.DataFrame(scores), pd.DataFrame(differences, columns=list(DIFFERENCES[number]))


def _parts(lines: Sequence[Line], ids: Sequence[str], *labels: str) -> dict[tuple, list[Line]]:
    """The lines of every system (and steps), which must be those of the questions, in order."""
    parts: dict[tuple, list[Line]] = {}
    for line in lines:
        parts.setdefault(tuple(line[name] for name in labels), []).append(line)
    for labelled, part in parts.items():
        if [line["id"] for line in part] != list(ids):
            raise ValueError(
                f"{labelled} has answers to other questions than the run asked; measure the table again"
            )
    return parts


def _conversation(run: TableRun, lines: Sequence[Line]) -> tuple[list[dict], list[dict]]:
    asked = make_conversation("test", run.pictures)
    parts = {name: own for (name,), own in _parts(lines, [one.id for one in asked], "system").items()}
    verdicts = {name: _judge(asked, own) for name, own in parts.items()}  # system: judge: verdicts
    scores, differences = [], []
    for name, own in parts.items():
        cases = conversation_cases(asked, [line["answer"] for line in own])
        for found in verdicts[name].values():
            table = summarise_verdicts(cases, found).drop(columns="order")
            table = table.rename(columns={"relative": "estimate"}).set_index("group")
            table = table.loc[[*GROUPS, *DOMAINS]].reset_index()
            scores += [{"system": name, **row} for row in table.to_dict("records")]
    for base, other in _pairs(list(parts)):
        for judge in verdicts[base]:
            for group in GROUPS:
                pair = [_of_group(asked, verdicts[name][judge], group) for name in (base, other)]
                labels = {"system": base, "minus": other, "judge": judge, "group": group}
                differences.append(labels | _compare(*pair))
    return scores, differences


def _vqa(run: TableRun, lines: Sequence[Line]) -> tuple[list[dict], list[dict]]:
    asked = make_benchmarks(run.rounds)
    places = np.array([one.benchmark for one in asked])
    is_closed = np.array([one.question.is_closed for one in asked])
    points = {}
    for (name,), own in _parts(lines, [one.id for one in asked], "system").items():
        items = benchmark_items(asked, [line["answer"] for line in own])
        points[name] = np.array([_score_item(item) for item in items])
    parts = {
        (benchmark, kind): is_kind & (places == benchmark)
        for benchmark in BENCHMARKS
        for kind, is_kind in (("open", ~is_closed), ("closed", is_closed))
    }

    def row(labels: Mapping[str, str], part: tuple[str, str], found: Interval) -> dict:
        questions = int(parts[part].sum())
        return {**labels, "benchmark": part[0], "kind": part[1], "questions": questions, **asdict(found)}

    scores = [
        row({"system": name}, part, bootstrap_interval(own[chosen]))
        for name, own in points.items()
        for part, chosen in parts.items()
    ]
    differences = [
        row(
            {"system": base, "minus": other},
            part,
            paired_difference(points[base][chosen], points[other][chosen]),
        )
        for base, other in _pairs(list(points))
        for part, chosen in parts.items()
    ]
    return scores, differences


def _steps(run: TableRun, lines: Sequence[Line]) -> tuple[list[dict], list[dict]]:
    """Length, time and facts against Z; a system without Z has one row a quantity."""
    asked = make_conversation("test", run.pictures)
    parts = _parts(lines, [one.id for one in asked], "system", "steps")
    judge = fact_judge(asked).name
    verdicts = {labels: _judge(asked, own)[judge] for labels, own in parts.items()}
    scores, differences = [], []
    for (name, steps), own in parts.items():
        for group in GROUPS:
            found = _of_group(asked, verdicts[name, steps], group)
            rows = _efforts(_of_group(asked, own, group), found)
            scores += [{"system": name, "steps": steps, "group": group, **row} for row in rows]
            if steps not in (None, run.steps[0]):
                most = _of_group(asked, verdicts[name, run.steps[0]], group)
                labels = {"system": name, "steps": run.steps[0], "minus_steps": steps, "group": group}
                differences.append(labels | _compare(most, found))
    frame = pd.DataFrame(scores).astype({"steps": "Int64"})
    return frame.to_dict("records"), differences


def _efforts(lines: Sequence[Line], verdicts: Sequence[Verdict]) -> list[dict]:
    """Quantities of Table 3; the ratio, seconds a word, has no interval."""
    values = {
        f"{name}_per_question": [line[name] for line in lines] for name in ("seconds", "words", "passes")
    }
    values["relative"] = [one.relative for one in verdicts]
    rows = [
        {"quantity": name, "questions": len(lines), **asdict(bootstrap_interval(own))}
        for name, own in values.items()
    ]
    words = sum(line["words"] for line in lines)
    ratio = sum(line["seconds"] for line in lines) / words if words else np.nan
    return [*rows, {"quantity": "seconds_per_word", "questions": len(lines), "estimate": ratio}]


def _judge(asked: Sequence[PhantomQuestion], lines: Sequence[Line]) -> dict[str, tuple[Verdict, ...]]:
    cases = conversation_cases(asked, [line["answer"] for line in lines])
    return {judge.name: judge.judge(cases).verdicts for judge in (fact_judge(asked), OverlapJudge())}


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which systems are compared: each base with all that follow it."""
    return [
        (base, other) for place, base in enumerate(names) if base in BASES for other in names[place + 1 :]
    ]


def _of_group(asked: Sequence[PhantomQuestion], values: Sequence, group: str) -> list:
    return [one for one, question in zip(values, asked, strict=True) if group in ("all", question.kind)]


def _compare(first: Sequence[Verdict], second: Sequence[Verdict]) -> dict:
    return {"questions": len(first), **asdict(compare_verdicts(first, second))}


def _score_item(item: VqaItem) -> float:
    """LLaVA-Med's accuracy of a closed question, or token recall of an open one, in percent."""
    if item.answer_type == "CLOSED":
        return 100.0 * closed_hit(item.prediction, item.reference, Script.SINGLE)
    return 100.0 * token_recall(item.prediction, item.reference)
