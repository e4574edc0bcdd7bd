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
    """Put the indefinite article before a noun, none before one that is not counted."""
    if noun in {"consolidation", "fibrosis", "haemorrhage", "oedema", "necrosis", "inflammation"}:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _only(scene: Scene) -> Finding | None:
    return scene.findings[0] if len(scene.findings) == 1 else None


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def _about_the_finding(
    family: str,
    name: str,
    wordings: Sequence[str],
    answers: Sequence[str],
    read: Callable[[Finding], str | None],
) -> Probe:
    """Make a probe on pictures with exactly one finding, so that 'the abnormality' has one meaning."""

    def answer(scene: Scene) -> str | None:
        finding = _only(scene)
        return None if finding is None else read(finding)

    return Probe(family, name, tuple(wordings), tuple(answers), answer)


def _presence(kind: str) -> Probe:
    noun = article(kind)
    wordings = (f"Is there {noun}?", f"Does the image show {noun}?", f"Can {noun} be seen?")

    def answer(scene: Scene) -> str | None:
        if kind not in KINDS[scene.domain]:
            return None
        return _yes(any(finding.kind == kind for finding in scene.findings))

    return Probe("presence", f"presence of {kind}", wordings, YES_NO, answer)


def _modality_check(domain: str) -> Probe:
    noun = {"histology": "a histology image", "gross pathology": "a gross pathology image"}.get(
        domain, article(domain)
    )
    wordings = (f"Is this {noun}?", f"Was this taken as {noun}?")
    return Probe(
        "modality", f"modality is {domain}", wordings, YES_NO, lambda scene: _yes(scene.domain == domain)
    )


def _finding_on(side: str) -> Probe:
    wordings = (f"Which abnormality lies on the {side}?", f"What is seen on the {side} side?")

    def answer(scene: Scene) -> str | None:
        there = [finding.kind for finding in scene.findings if finding.side == side]
        return there[0] if len(scene.findings) == 2 and len(there) == 1 else None

    return Probe("finding", f"finding on the {side}", wordings, ALL_KINDS, answer)


def _grade_check(grade: str) -> Probe:
    scale = next(scale for scale, grades in GRADES.items() if grade in grades)
    wordings = (f"Is the abnormality {grade}?", f"Would you call the abnormality {grade}?")

    def read(finding: Finding) -> str | None:
        return _yes(finding.grade == grade) if finding.grade in GRADES[scale] else None

    return _about_the_finding("extent", f"extent is {grade}", wordings, YES_NO, read)


def _all_probes() -> tuple[Probe, ...]:
    whole = [
        Probe(
            "modality",
            "modality",
            ("What type of image is this?", "How was this image made?"),
            DOMAINS,
            lambda scene: scene.domain,
        ),
        Probe(
            "normality",
            "normality",
            ("Is this image normal?", "Is the picture free of abnormalities?"),
            YES_NO,
            lambda scene: _yes(not scene.findings),
        ),
    ]
    one = [
        _about_the_finding(
            "finding",
            "finding",
            (
                "What abnormality is present?",
                "Which finding does the image show?",
                "What is wrong in this image?",
            ),
            ALL_KINDS,
            lambda f: f.kind,
        ),
        _about_the_finding(
            "side",
            "side",
            ("On which side is the abnormality?", "Which side is affected?"),
            SIDES,
            lambda f: f.side,
        ),
        _about_the_finding(
            "zone",
            "zone",
            ("In which zone is the abnormality?", "Which zone is affected?"),
            ZONES,
            lambda f: f.zone,
        ),
        _about_the_finding(
            "extent",
            "extent",
            ("How extensive is the abnormality?", "What is the extent of the abnormality?"),
            ALL_GRADES,
            lambda f: f.grade,
        ),
        _about_the_finding(
            "extent",
            "multiple",
            ("Is the abnormality multiple?", "Is there more than one lesion?"),
            YES_NO,
            lambda f: _yes(f.grade != "one") if f.grade in GRADES["count"] else None,
        ),
    ]
    sides = [
        _about_the_finding(
            "side",
            f"side is {side}",
            (f"Is the abnormality on the {side}?", f"Does the abnormality lie on the {side} side?"),
            YES_NO,
            lambda f, side=side: _yes(f.side == side),
        )
        for side in SIDES
    ]
    zones = [
        _about_the_finding(
            "zone",
            f"zone is {zone}",
            (f"Is the abnormality in the {zone} zone?", f"Does the abnormality lie in the {zone} zone?"),
            YES_NO,
            lambda f, zone=zone: _yes(f.zone == zone),
        )
        for zone in ZONES
    ]
    grades = [_grade_check(grade) for grade in GRADES["size"] + GRADES["severity"]]
    return (
        *whole,
        *one,
        *(_finding_on(side) for side in SIDES),
        *sides,
        *zones,
        *grades,
        *(_presence(kind) for kind in ALL_KINDS),
        *(_modality_check(domain) for domain in DOMAINS),
    )


PROBES = _all_probes()
FAMILIES = tuple(sorted({probe.family for probe in PROBES}))


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
            answer = probe.answer(scene)
            if answer is not None:
                by_answer.setdefault(answer, []).append(index)
        if len(by_answer) < 2:
            continue
        answers = [answer for answer in probe.answers if answer in by_answer]
        queues = {answer: _endless(rng, by_answer[answer], rounds) for answer in answers}
        for number in range(rounds):
            text = probe.wordings[number % len(probe.wordings)]
            for answer in answers:
                questions.append(Draw(int(queues[answer][number]), probe, text, answer))
    return questions


def _endless(rng: np.random.Generator, items: Sequence[int], count: int) -> np.ndarray:
    """`count` items, shuffled, starting over with a new shuffle when all were used."""
    times = -(-count // len(items))
    return np.concatenate([rng.permutation(items) for _ in range(times)])[:count]
