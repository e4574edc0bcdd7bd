"""Scores of benchmarks from questions and predictions: tables with intervals over questions."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd

from medv_lab.metrics.intervals import bootstrap_interval
from medv_lab.metrics.repetition import adjacent_duplicates
from medv_lab.metrics.scoring import (
    LLAVA_MED_VARIANTS,
    SAYS_BOTH,
    closed_hit,
    evaluate_vqa,
    said_yes_no,
    score_vqa,
    token_recall,
)
from medv_lab.phantoms.benchmark import SEED
from medv_lab.phantoms.facts import score_description
from medv_lab.phantoms.reports import write_controls
from medv_lab.phantoms.scenes import Scene
from medv_lab.records import Prediction, Question, answered, pair_up

PHANTOM_COLUMNS = ("group", "kind", "questions", "score", "low", "high")


def answer_candidates(questions: Sequence[Question]) -> list[str]:
    """Return the distinct answers to open training questions, from which `llava_med` takes the nearest.

    LLaVA-Med reads its candidates from a file of its own, which is not part of the data sets; so its `open accuracy`
    is comparable only under the same list.
    """
    own = [one.reference for one in questions if one.split == "train" and not one.is_closed]
    return list(dict.fromkeys(own))


def summarise_vqa(
    questions: Sequence[Question], predictions: Sequence[Prediction], candidates: Sequence[str] = ()
) -> pd.DataFrame:
    """Tabulate the scores of LLaVA-Med's two scripts, and strict ones, with 95 % bootstrap intervals over questions.

    Variant `strict` has closed accuracy and token recall in whole words, and the share of answers that say both yes and
    no or neither. "control" is what `SAYS_BOTH` to every question gets. A warning says where closed accuracy depends on
    how words are found.

    Args:
        questions: open and closed ones.
        predictions: one system's answers, in the order of the questions.
        candidates: as in `metrics.open_hit`; without any, what `llava_med` does with them is left out.

    Returns:
        Columns variant, metric, questions, score, low, high; scores in percent; a metric without questions has no row.

    Raises:
        ValueError: if these are not the answers to these questions.
    """
    pairs = list(zip(*answered(questions, predictions), strict=True))
    rows = []
    for variant in LLAVA_MED_VARIANTS:
        known = candidates or [""]  # llava_med needs some; what it does with these is left out below
        scores = pd.DataFrame([evaluate_vqa([one], [other.text], variant, known) for one, other in pairs])
        for metric in scores.columns:
            values = scores[metric].dropna()
            is_guess = variant == "llava_med" and metric == "open accuracy" and not candidates
            if len(values) and not is_guess:
                rows.append((variant, metric, len(values), *astuple(bootstrap_interval(values.to_numpy()))))
    for variant, metric, values in _strict_scores(pairs):
        rows.append((variant, metric, len(values), *astuple(bootstrap_interval(100 * np.array(values)))))
    return pd.DataFrame(rows, columns=["variant", "metric", "questions", "score", "low", "high"])


def _strict_scores(pairs: Sequence[tuple[Question, Prediction]]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield variant, metric and a score in [0, 1] per question; warn where closed answers count otherwise."""
    opened = [
        token_recall(answer.text, question.reference, "strict")
        for question, answer in pairs
        if not question.is_closed
    ]
    if opened:
        yield "strict", "recall", opened
    closed = [(answer.text, question.reference) for question, answer in pairs if question.is_closed]
    if not closed:
        return
    found = {name: [closed_hit(*one, name) for one in closed] for name in ("llava_med", "strict")}
    yield "strict", "yes/no accuracy", found["strict"]
    said = [said_yes_no(text) for text, true in closed if true.strip().lower() in ("yes", "no")]
    if said:
        yield "strict", "both or neither", [one in ("both", "neither") for one in said]
    for name in found:
        control = [closed_hit(SAYS_BOTH, true, name) for _, true in closed]
        yield f"control ({name})", f"yes/no accuracy of {SAYS_BOTH!r}", control
    differing = sum(one != other for one, other in zip(*found.values(), strict=True))
    if differing:
        script, strict = (100 * sum(hits) / len(hits) for hits in found.values())
        warnings.warn(
            f"closed accuracy is {script:.1f} by LLaVA-Med's script and {strict:.1f} in whole words: {differing} of "
            f"{len(closed)} answers count otherwise; {said.count('both')} say both yes and no, {said.count('neither')} "
            "neither. The script finds yes and no inside of words, and an answer that says both is right",
            stacklevel=4,
        )


def score_phantoms(questions: Sequence[Question], predictions: Sequence[Prediction]) -> list[float]:
    """Score answers to phantoms in [0, 1]: strict accuracy of closed questions, strict token recall of open ones.

    Raises:
        ValueError: if these are not the answers to these questions.
    """
    return [score_vqa(one, answer.text, "strict") for one, answer in pair_up(questions, predictions)]


def summarise_phantoms(
    questions: Sequence[Question], predictions: Sequence[Prediction], by: str = "family"
) -> pd.DataFrame:
    """Tabulate mean scores with 95 % bootstrap intervals: of all closed and all open questions, and by a tag.

    Args:
        questions: from `phantoms.benchmark`.
        predictions: one system's answers, in the order of the questions.
        by: a tag of the questions, "family" or "domain".

    Returns:
        Columns `PHANTOM_COLUMNS`; scores in percent.

    Raises:
        ValueError: if these are not the answers to these questions.
    """
    questions, predictions = answered(questions, predictions)
    scored = pd.DataFrame(
        {
            "kind": [question.kind for question in questions],
            "group": [question.tags[by] for question in questions],
            "score": score_phantoms(questions, predictions),
        }
    )
    rows = []
    for kind, part in scored.groupby("kind"):
        for name, own in [("all", part), *part.groupby("group")]:
            rows.append((name, kind, len(own), *astuple(bootstrap_interval(100 * own.score.to_numpy()))))
    return pd.DataFrame(rows, columns=list(PHANTOM_COLUMNS))


def summarise_descriptions(questions: Sequence[Question], predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Tabulate what is measured of descriptions, of one system and then of the controls, over the same scenes.

    Args:
        questions: from `phantoms.benchmark.make_descriptions`.
        predictions: one system's answers, in the order of the questions.

    Returns:
        Columns system, measure, descriptions, score, low, high (95 %, bootstrap over descriptions). Measures are those
        of `score_description` and adjacent duplicates, in percent; words and, where they are known, forward passes.

    Raises:
        ValueError: if these are not the answers to these questions.
    """
    questions, answers = answered(questions, predictions)
    scenes = [question.truth for question in questions]
    texts = {answers[0].system: [answer.text for answer in answers]}
    texts |= write_controls(scenes, [question.reference for question in questions], SEED)
    rows = []
    for system, own in texts.items():
        measured = pd.DataFrame([_measure_description(*pair) for pair in zip(own, scenes, strict=True)])
        if system == answers[0].system and None not in (passes := [answer.passes for answer in answers]):
            measured["passes"] = passes
        for measure, values in measured.items():
            rows.append((system, measure, len(own), *astuple(bootstrap_interval(values.to_numpy()))))
    return pd.DataFrame(rows, columns=["system", "measure", "descriptions", "score", "low", "high"])


def _measure_description(text: str, scene: Scene) -> dict[str, float]:
    words = text.split()
    duplicates = {"adjacent duplicates": 100 * adjacent_duplicates(words), "words": len(words)}
    return score_description(text, scene) | duplicates


def summarise_effort(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return Table 3's columns: words and seconds per question, seconds per word, forward passes per question.

    Refused questions are left out.
    Seconds per word are all seconds over all words; NaN without words. Passes are NaN where any are unknown.
    """
    effort = [(one.words, one.seconds, one.passes) for one in predictions if one.refusal is None]
    frame = pd.DataFrame(effort, columns=["words", "seconds", "passes"])
    words, seconds = frame.words.sum(), frame.seconds.sum()
    return {
        "seconds_per_question": float(frame.seconds.mean()),
        "words_per_question": float(frame.words.mean()),
        "seconds_per_word": float(seconds / words) if words else float("nan"),
        "passes_per_question": float(pd.to_numeric(frame.passes).mean(skipna=False)),
    }
