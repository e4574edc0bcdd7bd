"""Texts about scenes: captions, descriptions, and dialogues, by a small grammar from the ground truth.

Every sentence is true of its scene: findings with grade, side and zone, absent kinds as negatives, and anatomy
that every phantom of the domain shows. Wording varies with the random generator, facts never do.
"""

from collections.abc import Sequence

import numpy as np

from medv_lab.phantoms.questions import PROBES, Probe, article
from medv_lab.phantoms.scenes import KINDS, Finding, Scene

DESCRIPTION_REQUESTS = (
    "Describe the image.",
    "Describe this image in detail.",
    "Write a report of this image.",
    "What does the image show in detail?",
)
CAPTION_REQUESTS = (
    "Give a short caption.",
    "Summarise the image in one sentence.",
    "What is the main message of this image?",
)

_OPENINGS = {
    "chest x-ray": (
        "This is a chest x-ray.",
        "A chest x-ray of both lungs is shown.",
        "The image is a chest x-ray in frontal view.",
    ),
    "abdominal ct": (
        "This is an abdominal ct.",
        "An abdominal ct slice is shown.",
        "The image is an axial abdominal ct slice.",
    ),
    "brain mri": (
        "This is a brain mri.",
        "A brain mri slice is shown.",
        "The image is an axial brain mri slice.",
    ),
    "histology": (
        "This is a histology image.",
        "A histology section is shown.",
        "The image is a stained histology section.",
    ),
    "gross pathology": (
        "This is a gross pathology image.",
        "A gross pathology specimen is shown.",
        "The image is a photograph of a gross pathology specimen.",
    ),
}
_ANATOMY = {
    "chest x-ray": (
        "The ribs cross both lungs in regular arcs.",
        "The heart lies between the lungs.",
        "The diaphragm closes the lungs below.",
        "The lungs are dark because they hold air.",
    ),
    "abdominal ct": (
        "The body wall forms a bright outer ring.",
        "The spine is the brightest structure.",
        "The organs are grey on a dark background.",
        "The slice cuts the body across.",
    ),
    "brain mri": (
        "The skull surrounds the brain as a ring.",
        "The ventricles lie near the midline.",
        "Grey and white matter can be told apart.",
        "The slice cuts the brain across.",
    ),
    "histology": (
        "Nuclei are scattered over the stroma.",
        "The stroma is stained pink.",
        "The nuclei are stained purple.",
        "The section fills the whole field.",
    ),
    "gross pathology": (
        "The specimen lies on a plain cloth.",
        "The tissue is brown and red.",
        "The cut surface faces the camera.",
        "The border of the specimen is visible.",
    ),
}
_FINDING_SENTENCES = (
    "There {be} {what} in the {side} {zone} zone.",
    "The {side} {zone} zone shows {what}.",
    "In the {side} {zone} zone, {what} can be seen.",
    "On the {side}, in the {zone} zone, we see {what}.",
)
_NORMAL_SENTENCES = ("No abnormality is seen.", "The image is normal.", "There are no abnormal findings.")
_NEGATIVE_SENTENCES = ("There is no {kind}.", "No {kind} is seen.", "The image shows no sign of {kind}.")
_OTHER_ZONES = {
    "one": ("The other zones are clear.", "All other zones are clear.", "The {other} side is clear."),
    "more": ("The remaining zones are clear.", "All remaining zones are clear."),
}
_IMPRESSIONS = ("Impression: {what}.", "In summary, {what}.", "Conclusion: {what}.")


def finding_phrase(finding: Finding, kind_is: str) -> str:
    """Write a finding in words, e.g. 'two nodules', 'a large cyst', 'mild oedema'."""
    if kind_is == "count":
        return f"{finding.grade} {finding.kind}" + ("" if finding.grade == "one" else "s")
    return f"a {finding.grade} {finding.kind}" if kind_is == "size" else f"{finding.grade} {finding.kind}"


def make_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write one sentence with modality, findings, grades, sides and zones."""
    if not scene.findings:
        body = str(rng.choice(("no abnormality", "no abnormal findings", "normal findings")))
    else:
        order = rng.permutation(len(scene.findings))
        body = " and ".join(_locate(scene, scene.findings[i]) for i in order)
    return f"{article(scene.domain).capitalize()} with {body}."


def make_description(scene: Scene, rng: np.random.Generator) -> str:
    """Write a report of 40 to 120 words: opening, anatomy, findings, negatives, impression."""
    kinds = KINDS[scene.domain]
    findings = [scene.findings[i] for i in rng.permutation(len(scene.findings))]
    opening = [str(rng.choice(_OPENINGS[scene.domain]))]
    # A normal picture leaves less to say: all of its anatomy keeps the description above 40 words.
    anatomy_count = rng.integers(3, 5) if findings else 4
    anatomy = [_ANATOMY[scene.domain][i] for i in rng.permutation(4)[:anatomy_count]]
    reported = [
        str(rng.choice(_FINDING_SENTENCES)).format(
            what=finding_phrase(finding, kinds[finding.kind]),
            side=finding.side,
            zone=finding.zone,
            be="are" if finding.grade in ("two", "three") else "is",
        )
        for finding in findings
    ]
    if not findings:
        reported.append(str(rng.choice(_NORMAL_SENTENCES)))
    elif len(findings) == 1:
        other = "right" if findings[0].side == "left" else "left"
        reported.append(str(rng.choice(_OTHER_ZONES["one"])).format(other=other))
    else:
        reported.append(str(rng.choice(_OTHER_ZONES["more"])))
    absent = [kind for kind in kinds if kind not in {finding.kind for finding in findings}]
    negatives = [
        str(rng.choice(_NEGATIVE_SENTENCES)).format(kind=absent[i])
        for i in rng.permutation(len(absent))[: rng.integers(2 if findings else len(absent), len(absent) + 1)]
    ]
    sentences = opening + (
        anatomy + reported + negatives if rng.random() < 0.5 else reported + negatives + anatomy
    )
    summary = " and ".join(_locate(scene, finding) for finding in findings) or "no abnormality"
    return " ".join([*sentences, str(rng.choice(_IMPRESSIONS)).format(what=summary)])


def make_dialogue(
    scene: Scene, rng: np.random.Generator, turns: int, probes: Sequence[Probe] = PROBES
) -> list[tuple[str, str]]:
    """Ask several questions about one picture with their answers, as (question, answer) pairs, no question twice."""
    askable = [(probe, answer) for probe in probes if (answer := probe.answer(scene)) is not None]
    chosen = [askable[i] for i in rng.permutation(len(askable))[:turns]]
    return [(str(rng.choice(probe.wordings)), answer) for probe, answer in chosen]


def _locate(scene: Scene, finding: Finding) -> str:
    return f"{finding_phrase(finding, KINDS[scene.domain][finding.kind])} in the {finding.side} {finding.zone} zone"


def sample_texts(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Write every kind of text once per scene: what a tokenizer for phantoms is trained on."""
    rng = np.random.default_rng(seed)
    texts = [*DESCRIPTION_REQUESTS, *CAPTION_REQUESTS]
    for scene in scenes:
        texts += [make_caption(scene, rng), make_description(scene, rng)]
        texts += [part for pair in make_dialogue(scene, rng, 6) for part in pair]
    return texts
