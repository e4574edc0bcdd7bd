"""From the records of data sets to what responders are asked, and from their answers to scores and judges' cases."""

from collections.abc import Sequence

import pandas as pd

from medv_lab.evaluation.judges import Case
from medv_lab.evaluation.responders import Query
from medv_lab.evaluation.runner import Answered
from medv_lab.metrics.intervals import bootstrap_interval
from medv_lab.metrics.scoring import Script, VqaItem, evaluate_vqa
from medv_lab.records import Question

VQA_COLUMNS = ("script", "metric", "questions", "score", "low", "high")


def to_queries(questions: Sequence[Question], with_pictures: bool = True) -> list[Query]:
    """Return one query per question, named by its id: questions of one split, whose ids differ."""
    return [Query(one.id, one.text, one.image if with_pictures else None) for one in questions]


def vqa_items(questions: Sequence[Question], answers: Sequence[str]) -> list[VqaItem]:
    """Return what the metrics score.

    Raises:
        ValueError: for another number of answers than of questions.
    """
    return [
        VqaItem(question.kind.upper(), question.reference, answer)
        for question, answer in zip(questions, answers, strict=True)
    ]


def answer_candidates(questions: Sequence[Question]) -> list[str]:
    """Return the distinct answers to open training questions, from which the single script takes the nearest.

    LLaVA-Med reads its candidates from a file of its own, which is not part of the data sets; so its `open accuracy`
    is comparable only under the same list.
    """
    own = [one.reference for one in questions if one.split == "train" and not one.is_closed]
    return list(dict.fromkeys(own))


def summarise_vqa(items: Sequence[VqaItem], candidates: Sequence[str] = ()) -> pd.DataFrame:
    """All scores of LLaVA-Med's two scripts, under their names, with 95 % bootstrap intervals over questions.

    Args:
        items: open and closed questions, answered.
        candidates: as in `metrics.open_hit`; without any, what the single script does with them is left out.

    Returns:
        Columns `VQA_COLUMNS`; scores in percent; a metric without questions has no row.
    """
    rows = []
    for script in Script:
        known = candidates or [""]  # the script needs some; what it does with these is left out below
        scores = pd.DataFrame([evaluate_vqa([item], script, known) for item in items])
        for metric in scores.columns:
            values = scores[metric].dropna()
            is_guess = script is Script.SINGLE and metric == "open accuracy" and not candidates
            if len(values) and not is_guess:
                found = bootstrap_interval(values.to_numpy())
                rows.append((script.value, metric, len(values), found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=list(VQA_COLUMNS))


def chat_cases(questions: Sequence[Question], answers: Sequence[str]) -> list[Case]:
    """Return what a judge is given; averaged by kind of question and by domain.

    Raises:
        ValueError: for another number of answers than of questions.
    """
    return [
        Case(
            one.id,
            one.text,
            one.reference,
            answer,
            one.caption,
            one.context,
            (one.kind, one.tags["domain"]),
        )
        for one, answer in zip(questions, answers, strict=True)
    ]


def summarise_effort(answers: Sequence[Answered]) -> dict[str, float]:
    """Table 3's columns: words and seconds a question, seconds a word, and forward passes a question.

    Seconds a word are all seconds over all words; NaN without words. Passes are NaN where any are unknown.
    """
    frame = pd.DataFrame([vars(one) for one in answers])
    words, seconds = frame.words.sum(), frame.seconds.sum()
    return {
        "seconds_per_question": float(frame.seconds.mean()),
        "words_per_question": float(frame.words.mean()),
        "seconds_per_word": float(seconds / words) if words else float("nan"),
        "passes_per_question": float(pd.to_numeric(frame.passes).mean(skipna=False)),
    }
