"""Open-ended conversation about phantoms: the counterpart of the visual chatbot benchmark.

Like the 193 questions about 50 pictures, it asks of every held-out picture for one detailed description and a few
conversation questions, over five domains, with a caption and a reference answer. Here both come from the ground
truth, so that a judge can know it. Conversation questions are open ones in wordings that training uses, chosen where
they have one answer; their references are whole sentences.
"""

import numpy as np

from medv_lab.phantoms.benchmark import SEED
from medv_lab.phantoms.facts import Fact, true_facts
from medv_lab.phantoms.questions import PROBES, Probe, article
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import REQUESTS, locate_finding, write_report
from medv_lab.phantoms.scenes import DOMAINS, Finding, Scene, make_scenes
from medv_lab.records import Question

KINDS_OF_QUESTION = ("conversation", "detailed_description")
QUESTIONS_PER_PICTURE = 3  # conversation questions at most; the benchmark's 143 on 50 pictures are 2.9 each
_OPEN = tuple(probe for probe in PROBES if not probe.is_closed)
_PROBE_OF_WORDING = {text: probe for probe in _OPEN for text in probe.wordings}


def make_conversation(split: str = "test", pictures: int = 50, with_pictures: bool = True) -> list[Question]:
    """Draw the benchmark on the first pictures of a split; the domains take turns.

    Args:
        split: "validation", "test" or "compositional".
        pictures: how many, a multiple of the five domains.
        with_pictures: without, questions show what they give away by themselves.

    Returns:
        Questions of the two `KINDS_OF_QUESTION` with the tag domain, a caption, and the scene as truth.

    Raises:
        ValueError: for an unknown split, or another number of pictures.
    """
    if pictures < 1 or pictures % len(DOMAINS):
        raise ValueError(f"pictures is {pictures}; give a multiple of {len(DOMAINS)}, so many of each domain")
    rng = np.random.default_rng([SEED, 2])
    questions: list[Question] = []
    for number, scene in enumerate(make_scenes(split, pictures)):
        about = {
            "image": render(scene) if with_pictures else None,
            "split": split,
            "tags": {"domain": scene.domain},
            "caption": write_report(scene, rng, "sentence"),
            "truth": scene,
        }
        askable = [probe for probe in _OPEN if probe.answer(scene) is not None]
        chosen = sorted(rng.permutation(len(askable))[:QUESTIONS_PER_PICTURE])
        for order, probe in enumerate(askable[one] for one in chosen):
            text, reference = str(rng.choice(probe.wordings)), _reference(probe, scene, rng)
            name = f"{split}-{number:03}-{order}"
            questions.append(Question(name, text, reference=reference, kind="conversation", **about))
        text, reference = str(rng.choice(REQUESTS["detailed"])), write_report(scene, rng)
        name = f"{split}-{number:03}-d"
        questions.append(Question(name, text, reference=reference, kind="detailed_description", **about))
    return questions


def asked_facts(question: Question) -> set[Fact]:
    """Return the facts that a question about a phantom asks for; of a description, all of the scene.

    Raises:
        ValueError: for a question whose scene is not known, or a conversation question in a wording of its own.
    """
    scene = question.truth
    if not isinstance(scene, Scene):
        raise ValueError(f"no scene is known for question {question.id!r}; only phantoms have facts")
    if question.kind != "conversation":
        return true_facts(scene)
    probe = _PROBE_OF_WORDING.get(question.text)
    if probe is None:
        raise ValueError(
            f"{question.text!r} is no question of the phantom benchmark; give one that make_conversation drew"
        )
    if probe.family == "modality":
        return {("domain", scene.domain)}
    finding = _finding_asked_for(probe, scene)
    facts: dict[str, Fact] = {
        "finding": ("kind", finding.kind),
        "side": ("side", finding.kind, finding.side),
        "zone": ("zone", finding.kind, finding.zone),
        "extent": ("grade", finding.kind, finding.grade),
    }
    return {facts[probe.family]}


def _finding_asked_for(probe: Probe, scene: Scene) -> Finding:
    """Return the only finding, or the one whose kind is the answer."""
    if len(scene.findings) == 1:
        return scene.findings[0]
    return next(finding for finding in scene.findings if finding.kind == probe.answer(scene))


def _reference(probe: Probe, scene: Scene, rng: np.random.Generator) -> str:
    """Write the answer as a sentence."""
    if probe.family == "modality":
        return f"This is {article(scene.domain)}."
    finding = _finding_asked_for(probe, scene)
    sentences = {
        "finding": f"The image shows {locate_finding(scene, finding, rng)}.",
        "side": f"The abnormality lies on the {finding.side} side.",
        "zone": f"The abnormality lies in the {finding.zone} zone.",
        "extent": f"The extent of the abnormality is {finding.grade}.",
    }
    return sentences[probe.family]
