"""Open-ended conversation about phantoms: the small world's counterpart of the visual chatbot benchmark.

Like the 193 questions about 50 pictures, it asks of every held-out picture for one detailed description and a few
conversation questions, over five domains, with a caption and a reference answer. Here both come from the ground
truth, so that a judge can know it. Conversation questions are the open ones of the phantom world in wordings that
training uses, chosen where they have one answer; their references are whole sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medv_lab.evaluation.judges import Case, FactJudge
from medv_lab.evaluation.responders import Query
from medv_lab.phantoms.benchmark import IMAGE_SIZE, SEED
from medv_lab.phantoms.facts import Fact, true_facts
from medv_lab.phantoms.questions import PROBES, Probe, article
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import DESCRIPTION_REQUESTS, finding_phrase, make_caption, make_description
from medv_lab.phantoms.scenes import DOMAINS, KINDS, Finding, Scene, make_scenes

KINDS_OF_QUESTION = ("conversation", "detailed_description")
QUESTIONS_A_PICTURE = 3  # conversation questions at most; the benchmark's 143 on 50 pictures are 2.9 each
_OPEN = tuple(probe for probe in PROBES if not probe.is_closed)
_NOUNS = {"histology": "a histology image", "gross pathology": "a gross pathology image"}


@dataclass(frozen=True)
class PhantomQuestion:
    """One question of the benchmark.

    Attributes:
        id: unique.
        scene: what the picture shows.
        kind: one of `KINDS_OF_QUESTION`.
        text: the question.
        reference: a true and complete answer.
        caption: of the picture, for judges that read.
        asked: the facts that the question asks for.
    """

    id: str
    scene: Scene
    kind: str
    text: str
    reference: str
    caption: str
    asked: frozenset[Fact]


def make_conversation(split: str = "test", pictures: int = 50) -> list[PhantomQuestion]:
    """The benchmark on the first pictures of a split; the domains take turns.

    Args:
        split: "validation", "test" or "compositional".
        pictures: how many, a multiple of the five domains.

    Raises:
        ValueError: for an unknown split, or another number of pictures.
    """
    if pictures < 1 or pictures % len(DOMAINS):
        raise ValueError(f"pictures is {pictures}; give a multiple of {len(DOMAINS)}, so many of each domain")
    rng = np.random.default_rng([SEED, 2])
    questions: list[PhantomQuestion] = []
    for number, scene in enumerate(make_scenes(split, pictures)):
        caption = make_caption(scene, rng)
        askable = [probe for probe in _OPEN if probe.answer(scene) is not None]
        chosen = sorted(rng.permutation(len(askable))[:QUESTIONS_A_PICTURE])
        for place, probe in enumerate(askable[one] for one in chosen):
            text, asked = str(rng.choice(probe.wordings)), _asked(probe, scene)
            reference = _reference(probe, scene)
            name = f"{split}-{number:03}-{place}"
            questions.append(
                PhantomQuestion(name, scene, "conversation", text, reference, caption, frozenset(asked))
            )
        text, reference = str(rng.choice(DESCRIPTION_REQUESTS)), make_description(scene, rng)
        questions.append(
            PhantomQuestion(
                f"{split}-{number:03}-d",
                scene,
                "detailed_description",
                text,
                reference,
                caption,
                frozenset(true_facts(scene)),
            )
        )
    return questions


def conversation_queries(questions: Sequence[PhantomQuestion], with_pictures: bool = True) -> list[Query]:
    """What a responder is asked; without pictures, what the questions give away."""
    return [
        Query(one.id, one.text, render(one.scene, size=IMAGE_SIZE) if with_pictures else None)
        for one in questions
    ]


def conversation_cases(questions: Sequence[PhantomQuestion], answers: Sequence[str]) -> list[Case]:
    """What a judge is given; averaged by kind of question and by domain.

    Raises:
        ValueError: for another number of answers than of questions.
    """
    return [
        Case(one.id, one.text, one.reference, answer, one.caption, groups=(one.kind, one.scene.domain))
        for one, answer in zip(questions, answers, strict=True)
    ]


def fact_judge(questions: Sequence[PhantomQuestion]) -> FactJudge:
    """The judge that knows these pictures, and what each question asks for."""
    replies = {one.id: one.asked for one in questions if one.kind == "conversation"}
    return FactJudge({one.id: one.scene for one in questions}, replies)


def _about(probe: Probe, scene: Scene) -> Finding:
    """The finding that a question is about: the only one, or the one whose kind is the answer."""
    if len(scene.findings) == 1:
        return scene.findings[0]
    return next(finding for finding in scene.findings if finding.kind == probe.answer(scene))


def _asked(probe: Probe, scene: Scene) -> set[Fact]:
    if probe.family == "modality":
        return {("domain", scene.domain)}
    finding = _about(probe, scene)
    facts: dict[str, Fact] = {
        "finding": ("kind", finding.kind),
        "side": ("side", finding.kind, finding.side),
        "zone": ("zone", finding.kind, finding.zone),
        "extent": ("grade", finding.kind, finding.grade),
    }
    return {facts[probe.family]}


def _reference(probe: Probe, scene: Scene) -> str:
    """The answer as a sentence."""
    if probe.family == "modality":
        return f"This is {_NOUNS.get(scene.domain, article(scene.domain))}."
    finding = _about(probe, scene)
    phrase = finding_phrase(finding, KINDS[scene.domain][finding.kind])
    sentences = {
        "finding": f"The image shows {phrase} in the {finding.side} {finding.zone} zone.",
        "side": f"The abnormality lies on the {finding.side} side.",
        "zone": f"The abnormality lies in the {finding.zone} zone.",
        "extent": f"{phrase[0].upper()}{phrase[1:]} can be seen.",
    }
    return sentences[probe.family]
