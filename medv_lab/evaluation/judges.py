"""Judges of open-ended answers: verdicts on (question, prediction) pairs, and tables that always name the judge.

A judge scores a fixed reference answer and a candidate's from 1 to 10; the relative score is candidate / reference
x 100, averaged over questions (LLaVA-Med's visual chatbot benchmark, Table 1 of the paper). The two judges here
need no network: `FactJudge` knows the truth of phantoms, `OverlapJudge` compares words. `endpoint_judge.EndpointJudge`
asks a language model. Their scores are not comparable with each other. Any object with a `name` of its own and
`judge(questions, predictions)`, which returns a `Judgement`, is a judge too.
"""

import re
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import astuple, dataclass

import pandas as pd

from medv_lab.metrics.intervals import Interval, bootstrap_interval, paired_difference
from medv_lab.metrics.repetition import adjacent_duplicates, rep_n
from medv_lab.metrics.scoring import count_ngrams, normalize
from medv_lab.phantoms.conversation import asked_facts
from medv_lab.phantoms.facts import Fact, parse_report, read_reply, true_facts
from medv_lab.phantoms.scenes import Scene
from medv_lab.records import Prediction, Question, pair_up

LOWEST, HIGHEST = 1, 10
COLUMNS = (
    "judge",
    "order",
    "group",
    "questions",
    "reference_score",
    "candidate_score",
    "relative",
    "low",
    "high",
)


@dataclass(frozen=True)
class Verdict:
    """Both scores of one answered question, from 1 to 10; swapped if the candidate's answer was shown first."""

    question_id: str
    judge: str
    reference_score: float
    candidate_score: float
    is_swapped: bool = False

    @property
    def relative(self) -> float:
        """Candidate / reference x 100."""
        return 100 * self.candidate_score / self.reference_score


@dataclass(frozen=True)
class Judgement:
    """Verdicts in the order of the questions, and the questions without one.

    Attributes:
        verdicts: of every question that has scores; means are over these.
        unscored: ids of questions that the judge gave no scores, or not in both orders.
        refused: ids of those among them that were never answered, or not judged, because somebody refused to.
    """

    verdicts: tuple[Verdict, ...]
    unscored: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def describe_unscored(self, questions: int) -> str:
        """Say how many of so many questions have no scores, and why."""
        refused = len(self.refused)
        reasons = f"{refused} refused, {len(self.unscored) - refused} without readable scores"
        means = "; means are over the rest" if self.unscored else ""
        return (
            f"{len(self.unscored)} of {questions} unscored"
            + (f" ({reasons})" if self.unscored else "")
            + means
        )


class OverlapJudge:
    """1 + 9 F1 of the words shared with the reference, each word as often as both say it.

    The reference agrees with itself and has 10. A control, blind to meaning.
    """

    name = "word overlap"

    def judge(self, questions: Sequence[Question], predictions: Sequence[Prediction]) -> Judgement:
        """Score every answer."""
        verdicts = [
            Verdict(
                question.id, self.name, HIGHEST, _score(_shared_words(prediction.text, question.reference))
            )
            for question, prediction in pair_up(questions, predictions)
            if prediction.refusal is None
        ]
        return Judgement(tuple(verdicts), *refused_among(predictions))


@dataclass(frozen=True)
class FactCount:
    """Facts of an answer about a phantom, and its faults.

    Attributes:
        right: facts that were asked for (of a description: all of the scene) and are stated.
        wrong: claims that are not true, or of the kind that was asked for and not the answer.
        missing: facts that were asked for and are not stated.
        contradictions: claims that exclude another of its own, true or not.
        repetition: the larger of the share of doubled neighbouring words and of 4-grams said before.
    """

    right: int
    wrong: int
    missing: int
    contradictions: int
    repetition: float

    @property
    def score(self) -> float:
        """1 + 9 (1 - repetition) right / (right + wrong + missing + contradictions)."""
        told = self.right / (self.right + self.wrong + self.missing + self.contradictions)
        return _score(told * (1 - self.repetition))


class FactJudge:
    """Scores answers about phantoms by their facts; reference and candidate by the same formula (`FactCount`).

    A true negative ("no ulcer is seen") neither gains nor costs: there is no end of them. Nor does a true fact that
    was not asked for. Questions are those of `phantoms.conversation`, with the scene as their truth.
    """

    name = "phantom facts"

    def judge(self, questions: Sequence[Question], predictions: Sequence[Prediction]) -> Judgement:
        """Score every answer.

        Raises:
            ValueError: for a question whose scene is not known, or one that is none of the benchmark's.
        """
        verdicts = []
        for question, prediction in pair_up(questions, predictions):
            if prediction.refusal is not None:
                continue
            facts = asked_facts(question)
            asked = facts if question.kind == "conversation" else None
            scores = [
                count_facts(text, question.truth, asked).score
                for text in (question.reference, prediction.text)
            ]
            verdicts.append(Verdict(question.id, self.name, *scores))
        return Judgement(tuple(verdicts), *refused_among(predictions))


def refused_among(predictions: Sequence[Prediction]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of refused questions, as a `Judgement` names them: unscored, and refused."""
    refused = tuple(one.question_id for one in predictions if one.refusal is not None)
    return refused, refused


def count_facts(text: str, scene: Scene, asked: Set[Fact] | None = None) -> FactCount:
    """Count facts of an answer, right, wrong and missing, and how it contradicts and repeats itself.

    Args:
        text: the answer.
        scene: what the picture shows.
        asked: the facts that answer the question; None for a description, which is to state them all.
    """
    truth = true_facts(scene)
    claims = parse_report(text).facts if asked is None else read_reply(text, scene)
    asked = truth if asked is None else asked
    present, asked_names = {finding.kind for finding in scene.findings}, {fact[0] for fact in asked}
    negatives = {claim for claim in claims if claim[0] == "absent" and claim[1] not in present}
    aside = {fact for fact in truth if fact[0] not in asked_names}
    words = re.findall(r"[\w-]+", text.lower())
    return FactCount(
        right=len(claims & asked),
        wrong=len(claims - asked - aside - negatives),
        missing=len(asked - claims),
        contradictions=_count_contradictions(claims),
        repetition=max(adjacent_duplicates(words), rep_n(words, 4)),
    )


def summarise_verdicts(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Tabulate mean scores by judge, order and group; the relative score with its 95 % bootstrap interval.

    A question's groups are "all", its kind and its tags. Judges and orders of the two answers are never averaged over:
    each has rows of its own.

    Returns:
        Columns `COLUMNS`; order is "reference first" or "candidate first".

    Raises:
        ValueError: for a verdict on none of the questions, or two verdicts of one judge on one question in one order.
    """
    groups = {one.id: ("all", one.kind, *one.tags.values()) for one in questions}
    judged = Counter((one.judge, one.is_swapped, one.question_id) for one in verdicts)
    twice = [name for (*_, name), count in judged.items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} questions have two scores, the first is {twice[0]!r}")
    unknown = [one.question_id for one in verdicts if one.question_id not in groups]
    if unknown:
        raise ValueError(
            f"there is no question for the verdict on {unknown[0]!r}; give the questions that were judged"
        )
    parts: dict[tuple[str, str, str], list[Verdict]] = {}
    for one in verdicts:
        order = "candidate first" if one.is_swapped else "reference first"
        for group in groups[one.question_id]:
            parts.setdefault((one.judge, order, group), []).append(one)
    rows = []
    for labels, part in parts.items():
        relative = bootstrap_interval([one.relative for one in part])
        reference = sum(one.reference_score for one in part) / len(part)
        candidate = sum(one.candidate_score for one in part) / len(part)
        rows.append((*labels, len(part), reference, candidate, *astuple(relative)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def compare_verdicts(first: Sequence[Verdict], second: Sequence[Verdict]) -> Interval:
    """Return the mean relative score of one system minus another's, in points, over the same questions.

    Raises:
        ValueError: if the two are not one judge's verdicts on the same questions in the same order.
    """
    judges = {(one.judge, one.is_swapped) for one in (*first, *second)}
    if len(judges) > 1:
        raise ValueError(f"scores of different judges or orders cannot be compared: {sorted(judges)}")
    if [one.question_id for one in first] != [one.question_id for one in second]:
        raise ValueError("the two systems' verdicts are on different questions; judge both on the same ones")
    return paired_difference([one.relative for one in first], [one.relative for one in second])


def position_bias(verdicts: Sequence[Verdict]) -> Interval:
    """Return the points of 10 that a candidate gains by being shown first, over questions judged in both orders.

    Raises:
        ValueError: if no question was, or several judges' verdicts are given.
    """
    judges = {one.judge for one in verdicts}
    second = {one.question_id: one.candidate_score for one in verdicts if not one.is_swapped}
    first = {one.question_id: one.candidate_score for one in verdicts if one.is_swapped}
    both = [name for name in second if name in first]
    if len(judges) != 1 or not both:
        raise ValueError(
            f"{len(both)} questions were judged in both orders, by {len(judges)} judges; position bias needs one judge "
            "that was asked with swap=True"
        )
    return paired_difference([first[name] for name in both], [second[name] for name in both])


def _count_contradictions(claims: Set[Fact]) -> int:
    """Count claims beyond what can be true at once: a scene has one domain, and of a kind one side, zone and grade."""
    kinds = {claim[1] for claim in claims if claim[0] == "kind"}
    absent = {claim[1] for claim in claims if claim[0] == "absent"}
    slots = Counter(claim[:-1] for claim in claims if claim[0] in ("domain", "side", "zone", "grade"))
    doubled = sum(count - 1 for count in slots.values())
    return doubled + len(kinds & absent) + (len(kinds) if ("normal",) in claims else 0)


def _shared_words(candidate: str, reference: str) -> float:
    said, true = (count_ngrams(normalize(text)) for text in (candidate, reference))
    total = said.total() + true.total()
    return 2 * (said & true).total() / total if total else 0.0


def _score(share: float) -> float:
    return LOWEST + (HIGHEST - LOWEST) * share
