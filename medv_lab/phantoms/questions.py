"""Closed and open questions about scenes, balanced so that a question alone says nothing of its answer.

Every canonical question (a `Probe`) has a fixed set of answers, and a picture either has one of them or the
question does not apply. `balanced_questions` draws *rounds*: one item for every answer of a probe, all in the
same wording. So within a split each wording has its answers equally often, and a model that sees no picture
cannot beat chance (1 / number of answers). No wording names what it asks for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medv_lab.phantoms.scenes import DOMAINS, GRADES, KINDS, SIDES, ZONES, Finding, Scene

YES_NO = ("yes", "no")
ALL_KINDS = tuple(sorted({kind for kinds in KINDS.values() for kind in kinds}))
ALL_GRADES = tuple(grade for grades in GRADES.values() for grade in grades)


@dataclass(frozen=True)
class Probe:
    """A canonical question: its wordings, its answers, and how a scene answers it (None: does not apply)."""

    family: str
    name: str
    wordings: tuple[str, ...]
    answers: tuple[str, ...]
    answer: Callable[[Scene], str | None]

    @property
    def is_closed(self) -> bool:
        """True if the answers are yes and no."""
        return self.answers == YES_NO


class Draw(NamedTuple):
    """One drawn question.

    Attributes:
        scene: index into the list of scenes the questions were drawn from.
        probe: the canonical question, over which answers are balanced.
        text, answer: the wording and the ground truth.
    """

    scene: int
    probe: Probe
    text: str
    answer: str


def article(noun: str) -> str:
    """Put the indefinite article before a kind or domain, none before a kind that is not counted."""
    if noun in {"consolidation", "fibrosis", "haemorrhage", "oedema", "necrosis", "inflammation"}:
        return noun
    if noun in ("histology", "gross pathology"):
        return f"a {noun} image"
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _yes(condition: bool) -> str:
    return YES_NO[not condition]


def _about_the_finding(
    family: str,
    name: str,
    wordings: tuple[str, ...],
    answers: tuple[str, ...],
    read: Callable[[Finding], str | None],
) -> Probe:
    """Make a probe on pictures with exactly one finding, so that 'the abnormality' has one meaning."""

    def answer(scene: Scene) -> str | None:
        return read(scene.findings[0]) if len(scene.findings) == 1 else None

    return Probe(family, name, wordings, answers, answer)


def _side_check(side: str) -> Probe:
    wordings = (f"Is the abnormality on the {side}?", f"Does the abnormality lie on the {side} side?")
    return _about_the_finding("side", f"side is {side}", wordings, YES_NO, lambda f: _yes(f.side == side))


def _zone_check(zone: str) -> Probe:
    wordings = (f"Is the abnormality in the {zone} zone?", f"Does the abnormality lie in the {zone} zone?")
    return _about_the_finding("zone", f"zone is {zone}", wordings, YES_NO, lambda f: _yes(f.zone == zone))


def _grade_check(grade: str) -> Probe:
    scale = next(grades for grades in GRADES.values() if grade in grades)
    wordings = (f"Is the abnormality {grade}?", f"Would you call the abnormality {grade}?")

    def read(finding: Finding) -> str | None:
        return _yes(finding.grade == grade) if finding.grade in scale else None

    return _about_the_finding("extent", f"extent is {grade}", wordings, YES_NO, read)


def _presence(kind: str) -> Probe:
    noun = article(kind)
    wordings = (f"Is there {noun}?", f"Does the image show {noun}?", f"Can {noun} be seen?")

    def answer(scene: Scene) -> str | None:
        if kind not in KINDS[scene.domain]:
            return None
        return _yes(any(finding.kind == kind for finding in scene.findings))

    return Probe("presence", f"presence of {kind}", wordings, YES_NO, answer)


def _modality_check(domain: str) -> Probe:
    wordings = (f"Is this {article(domain)}?", f"Was this taken as {article(domain)}?")
    name = f"modality is {domain}"
    return Probe("modality", name, wordings, YES_NO, lambda scene: _yes(scene.domain == domain))


def _finding_on(side: str) -> Probe:
    wordings = (f"Which abnormality lies on the {side}?", f"What is seen on the {side} side?")

    def answer(scene: Scene) -> str | None:
        there = [finding.kind for finding in scene.findings if finding.side == side]
        return there[0] if len(scene.findings) == 2 and len(there) == 1 else None

    return Probe("finding", f"finding on the {side}", wordings, ALL_KINDS, answer)


_TYPE = ("What type of image is this?", "How was this image made?")
_NORMAL = ("Is this image normal?", "Is the picture free of abnormalities?")
_FINDING = (
    *("What abnormality is present?", "Which finding does the image show?"),
    "What is wrong in this image?",
)
_SIDE = ("On which side is the abnormality?", "Which side is affected?")
_ZONE = ("In which zone is the abnormality?", "Which zone is affected?")
_EXTENT = ("How extensive is the abnormality?", "What is the extent of the abnormality?")
_MULTIPLE = ("Is the abnormality multiple?", "Is there more than one lesion?")

PROBES = (
    Probe("modality", "modality", _TYPE, DOMAINS, lambda scene: scene.domain),
    Probe("normality", "normality", _NORMAL, YES_NO, lambda scene: _yes(not scene.findings)),
    _about_the_finding("finding", "finding", _FINDING, ALL_KINDS, lambda f: f.kind),
    _about_the_finding("side", "side", _SIDE, SIDES, lambda f: f.side),
    _about_the_finding("zone", "zone", _ZONE, ZONES, lambda f: f.zone),
    _about_the_finding("extent", "extent", _EXTENT, ALL_GRADES, lambda f: f.grade),
    _about_the_finding(
        *("extent", "multiple", _MULTIPLE, YES_NO),
        lambda f: _yes(f.grade != "one") if f.grade in GRADES["count"] else None,
    ),
    *map(_finding_on, SIDES),
    *map(_side_check, SIDES),
    *map(_zone_check, ZONES),
    *map(_grade_check, GRADES["size"] + GRADES["severity"]),
    *map(_presence, ALL_KINDS),
    *map(_modality_check, DOMAINS),
)


def balanced_questions(
    scenes: Sequence[Scene], rounds: int, seed: int, probes: Sequence[Probe] = PROBES
) -> list[Draw]:
    """Draw questions in which each wording has each of its answers equally often.

    Args:
        scenes: the pictures to ask about; a picture is used again only when all that give an answer were used.
        rounds: rounds per probe; a round asks one wording once for every answer that some scene gives.
        seed: of the draws.
        probes: the canonical questions; by default all of them.

    Returns:
        The questions, rounds of a probe one after the other. A probe with fewer than two answers among the
        scenes is left out, since its wording would give its answer away.
    """
    rng = np.random.default_rng([seed, len(scenes)])
    questions: list[Draw] = []
    for probe in probes:
        by_answer: dict[str, list[int]] = {}
        for index, scene in enumerate(scenes):
            if (answer := probe.answer(scene)) is not None:
                by_answer.setdefault(answer, []).append(index)
        if len(by_answer) < 2:
            continue
        answers = [answer for answer in probe.answers if answer in by_answer]
        queues = {answer: _endless(rng, by_answer[answer], rounds) for answer in answers}
        for number in range(rounds):
            text = probe.wordings[number % len(probe.wordings)]
            questions += [Draw(int(queues[answer][number]), probe, text, answer) for answer in answers]
    return questions


def _endless(rng: np.random.Generator, items: Sequence[int], count: int) -> np.ndarray:
    """Return `count` items, shuffled, starting over with a new shuffle when all were used."""
    times = -(-count // len(items))
    return np.concatenate([rng.permutation(items) for _ in range(times)])[:count]
