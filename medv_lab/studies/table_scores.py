"""Scores of Tables 1, 2 and 3 on phantoms, from answers alone: with intervals, and paired differences.

Answers are those of `tables`. Whatever is compared was asked the same questions; intervals are
over questions. Systems stay in the order of their answers; those in `BASES` are compared with all that follow them.
In Tables 1 and 3 the `CONTROLS` of descriptions come last, which need no answers: they are made of the references.
Only descriptions have them, since an answer of a few words has hardly an order to lose. Table 2's control says yes and
no to everything, which LLaVA-Med's accuracy takes for right; closed questions are scored in whole words too (`STRICT`).
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations, product

import numpy as np
import pandas as pd

from medv_lab.evaluation.judges import FactJudge, OverlapJudge, Verdict, compare_verdicts, summarise_verdicts
from medv_lab.metrics.intervals import bootstrap_interval, paired_difference
from medv_lab.metrics.scoring import SAYS_BOTH, SAYS_BOTH_NAME, score_vqa
from medv_lab.phantoms.benchmark import BENCHMARKS, SEED, make_benchmarks
from medv_lab.phantoms.conversation import KINDS_OF_QUESTION, make_conversation
from medv_lab.phantoms.reports import write_controls
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.records import Prediction, Question, pair_up
from medv_lab.studies.table_run import TableRun

GROUPS = ("all", *KINDS_OF_QUESTION)
DESCRIBED = "detailed_description"
STRICT = "closed, strict"
BASES = ("diffusion", "ours")
INTERVAL = ("estimate", "low", "high")
DIFFERENCES = {
    1: ("system", "minus", "judge", "group", "questions", *INTERVAL),
    2: ("system", "minus", "benchmark", "kind", "questions", *INTERVAL),
    3: ("system", "steps", "minus_steps", "group", "questions", *INTERVAL),
}

Frames = tuple[pd.DataFrame, pd.DataFrame]  # scores, differences


def score_table(number: int, run: TableRun, predictions: Sequence[Prediction]) -> Frames:
    """Compute scores and differences of a table.

    Args:
        number: 1, 2 or 3.
        run: what was asked.
        predictions: the answers, one run after the other; of Table 3 with seconds, passes and settings.

    Returns:
        Scores: Table 1 by system, judge and group; Table 2 by system, benchmark and kind, in percent (recall of open
        questions, accuracy of closed ones, and that in whole words); Table 3 by system, steps, group and quantity.
        Differences in the columns `DIFFERENCES`.

    Raises:
        ValueError: if a system answered other questions than those of the run.
    """
    runs: dict[tuple[str, str], list[Prediction]] = {}
    for one in predictions:
        runs.setdefault((one.system, one.run), []).append(one)
    scores, differences = {1: _conversation, 2: _vqa, 3: _steps}[number](run, list(runs.values()))
    return pd.DataFrame(scores), pd.DataFrame(differences, columns=list(DIFFERENCES[number]))


def _conversation(run: TableRun, runs: Sequence[list[Prediction]]) -> tuple[list[dict], list[dict]]:
    asked = make_conversation("test", run.pictures, with_pictures=False)
    verdicts = {own[0].system: _judge(asked, own) for own in runs}  # system: judge: verdicts
    scores, differences = [], []
    for name, judged in verdicts.items():
        for found in judged.values():
            table = summarise_verdicts(asked, found).drop(columns="order")
            table = table.rename(columns={"relative": "estimate"}).set_index("group")
            table = table.loc[[*GROUPS, *DOMAINS]].reset_index()
            scores += [{"system": name, **row} for row in table.to_dict("records")]
    described, controls = _controls(asked)
    for name, own in controls.items():
        for found in _judge(described, own).values():
            table = summarise_verdicts(described, found).drop(columns="order")
            table = table.rename(columns={"relative": "estimate"})
            scores += [{"system": name, **row} for row in table[table.group == DESCRIBED].to_dict("records")]
    for base, other in _pairs(list(verdicts)):
        for judge in verdicts[base]:
            for group in GROUPS:
                pair = [_of_group(asked, verdicts[name][judge], group) for name in (base, other)]
                labels = {"system": base, "minus": other, "judge": judge, "group": group}
                differences.append(labels | _compare(*pair))
    return scores, differences


def _vqa(run: TableRun, runs: Sequence[list[Prediction]]) -> tuple[list[dict], list[dict]]:
    asked = make_benchmarks(run.rounds, with_pictures=False)
    texts = {own[0].system: [answer.text for _, answer in pair_up(asked, own)] for own in runs}
    points, strict = (
        {
            name: np.array([100 * score_vqa(*one, variant) for one in zip(asked, own, strict=True)])
            for name, own in (texts | {SAYS_BOTH_NAME: [SAYS_BOTH] * len(asked)}).items()
        }
        for variant in ("llava_med", "strict")
    )
    parts = []
    for benchmark, kind in product(BENCHMARKS, ("open", "closed")):
        chosen = np.array([one.tags["benchmark"] == benchmark and one.kind == kind for one in asked])
        labels = {"benchmark": benchmark, "kind": kind, "questions": int(chosen.sum())}
        parts.append((labels, chosen))
    scores = []
    for name, own in points.items():
        for labels, chosen in parts:
            scores.append({"system": name, **labels, **asdict(bootstrap_interval(own[chosen]))})
            if labels["kind"] == "closed":
                found = asdict(bootstrap_interval(strict[name][chosen]))
                scores.append({"system": name, **labels, "kind": STRICT, **found})
    differences = [
        {"system": base, "minus": other, **labels}
        | asdict(paired_difference(points[base][chosen], points[other][chosen]))
        for base, other in _pairs(list(texts))
        for labels, chosen in parts
    ]
    return scores, differences


def _steps(run: TableRun, runs: Sequence[list[Prediction]]) -> tuple[list[dict], list[dict]]:
    """Tabulate length, time and facts against Z; a system without Z has one row per quantity."""
    asked = make_conversation("test", run.pictures, with_pictures=False)
    parts = {(own[0].system, own[0].settings.get("steps")): own for own in runs}
    verdicts = {labels: _judge(asked, own)[FactJudge.name] for labels, own in parts.items()}
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
    described, controls = _controls(asked)
    for name, own in controls.items():
        rows = _efforts(own, _judge(described, own)[FactJudge.name])
        scores += [{"system": name, "steps": None, "group": DESCRIBED, **row} for row in rows]
    frame = pd.DataFrame(scores).astype({"steps": "Int64"})
    return frame.to_dict("records"), differences


def _efforts(predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> list[dict]:
    """Tabulate the known quantities of Table 3; the ratio, seconds per word, has no interval."""
    efforts = ("seconds", "words", "passes")
    values = {f"{name}_per_question": [getattr(one, name) for one in predictions] for name in efforts}
    values["relative"] = [one.relative for one in verdicts]
    found = {name: asdict(bootstrap_interval(own)) for name, own in values.items() if None not in own}
    if "seconds_per_question" in found:
        words = sum(one.words for one in predictions)
        ratio = sum(one.seconds for one in predictions) / words if words else np.nan
        found["seconds_per_word"] = {"estimate": ratio}
    return [{"quantity": name, "questions": len(predictions), **row} for name, row in found.items()]


def _judge(asked: Sequence[Question], own: Sequence[Prediction]) -> dict[str, tuple[Verdict, ...]]:
    return {judge.name: judge.judge(asked, own).verdicts for judge in (FactJudge(), OverlapJudge())}


def _controls(asked: Sequence[Question]) -> tuple[list[Question], dict[str, list[Prediction]]]:
    """Return the questions that ask for a description, and answers to them by control."""
    described = [one for one in asked if one.kind == DESCRIBED]
    texts = write_controls([one.truth for one in described], [one.reference for one in described], SEED)
    return described, {
        name: [Prediction(one.id, name, text) for one, text in zip(described, own, strict=True)]
        for name, own in texts.items()
    }


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return which systems are compared: each base with all that follow it."""
    return [pair for pair in combinations(names, 2) if pair[0] in BASES]


def _of_group(asked: Sequence[Question], values: Sequence, group: str) -> list:
    return [one for one, question in zip(values, asked, strict=True) if group in ("all", question.kind)]


def _compare(first: Sequence[Verdict], second: Sequence[Verdict]) -> dict:
    return {"questions": len(first), **asdict(compare_verdicts(first, second))}
