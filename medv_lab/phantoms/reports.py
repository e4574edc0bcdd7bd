"""Reports about scenes, written by a grammar in three lengths; `facts` reads them back by the same grammar.

A report has the order of a real one. What is in it depends on the length that a request asks for:

    sentence  technique and findings in one sentence
    brief     technique, findings, negatives
    detailed  technique, findings, negatives, background, impression

Findings, kinds that are denied and background come in the order of their lists, and all absent kinds are denied;
wording varies with the random generator, facts never do. So what a report says is true of its scene, and no two of
its statements contradict each other. A finding is named before its extent ("a cyst ..., small in size"), so that
whoever writes it, in whatever order, need not commit to an extent before the kind.
"""

from collections.abc import Sequence

import numpy as np

from medv_lab.phantoms.questions import PROBES, Probe, article
from medv_lab.phantoms.scenes import GRADES, KINDS, Finding, Scene

REQUESTS = {
    "sentence": (
        "Give a short caption.",
        "Summarise the image in one sentence.",
        "What is the main message of this image?",
    ),
    "brief": (
        "Describe the image briefly.",
        "Write a brief report of this image.",
        "What does the image show in brief?",
    ),
    "detailed": (
        "Describe the image.",
        "Describe this image in detail.",
        "Write a report of this image.",
        "What does the image show in detail?",
    ),
}
LENGTHS = tuple(REQUESTS)
CONTROLS = ("reference", "another picture", "word salad")  # what descriptions are read against

# --- the grammar: every sentence is one of these templates with its slots filled --------------------------

TECHNIQUE = {
    "chest x-ray": (
        "This is a {domain}.",
        "A {domain} of both lungs is shown.",
        "The image is a {domain} in frontal view.",
    ),
    "abdominal ct": (
        "This is an {domain}.",
        "An {domain} slice is shown.",
        "The image is an axial {domain} slice.",
    ),
    "brain mri": (
        "This is a {domain}.",
        "A {domain} slice is shown.",
        "The image is an axial {domain} slice.",
    ),
    "histology": (
        "This is a {domain} image.",
        "A {domain} section is shown.",
        "The image is a stained {domain} section.",
    ),
    "gross pathology": (
        "This is a {domain} image.",
        "A {domain} specimen is shown.",
        "The image is a photograph of a {domain} specimen.",
    ),
}
FINDING = (
    "There {be} {noun} in the {side} {zone} zone, {extent}.",
    "The {side} {zone} zone shows {noun}, {extent}.",
    "In the {side} {zone} zone, {noun} {be} seen, {extent}.",
    "{Noun} {be} seen in the {side} {zone} zone, {extent}.",
)
NORMAL = ("No abnormality is seen.", "The image is normal.", "There are no abnormal findings.")
NEGATIVE = ("There is no {kinds}.", "No {kinds} is seen.", "There is no sign of {kinds}.")
BACKGROUND = {  # domain: topics in their order, each in two wordings
    "chest x-ray": (
        ("The ribs cross both lungs in regular arcs.", "Both lungs are crossed by the ribs."),
        ("The heart lies between the lungs.", "The heart is in the midline."),
        ("The diaphragm closes the lungs below.", "Below, the lungs end at the diaphragm."),
        ("The lungs are dark because they hold air.", "Air makes the lungs dark."),
    ),
    "abdominal ct": (
        ("The body wall forms a bright outer ring.", "A bright ring is the body wall."),
        ("The spine is the brightest structure.", "Nothing is brighter than the spine."),
        ("The organs are grey on a dark background.", "The background is dark, the organs are grey."),
        ("The slice cuts the body across.", "The body is cut across."),
    ),
    "brain mri": (
        ("The skull surrounds the brain as a ring.", "A ring around the brain is the skull."),
        ("The ventricles lie near the midline.", "Near the midline lie the ventricles."),
        ("Grey and white matter can be told apart.", "White matter differs from grey matter."),
        ("The slice cuts the brain across.", "The brain is cut across."),
    ),
    "histology": (
        ("Nuclei are scattered over the stroma.", "The stroma holds scattered nuclei."),
        ("The stroma is stained pink.", "Pink stain colours the stroma."),
        ("The nuclei are stained purple.", "Purple stain colours the nuclei."),
        ("The section fills the whole field.", "The whole field is filled by the section."),
    ),
    "gross pathology": (
        ("The specimen lies on a plain cloth.", "A plain cloth lies under the specimen."),
        ("The tissue is brown and red.", "Brown and red are the colours of the tissue."),
        ("The cut surface faces the camera.", "The camera looks at the cut surface."),
        ("The border of the specimen is visible.", "The specimen is shown with its border."),
    ),
}
IMPRESSION = ("Impression: {findings}.", "In summary, {findings}.", "Conclusion: {findings}.")
CAPTION = ("{A_domain} with {findings}.", "{A_domain} that shows {findings}.")
EXTENTS = {  # scale: wordings
    "size": ("{grade} in size", "of {grade} size"),
    "severity": ("{grade} in degree", "of {grade} degree"),
    "count": ("{grade} in number", "numbering {grade}"),
}
LOCATED = "{noun} in the {side} {zone} zone, {extent}"
NO_FINDINGS = ("no abnormality", "no abnormal findings", "normal findings")


# --- writing ----------------------------------------------------------------------------------------------


def write_report(scene: Scene, rng: np.random.Generator, length: str = "detailed") -> str:
    """Write a report of a scene.

    Args:
        scene: the facts.
        rng: chooses wordings, and which topics of the background are mentioned.
        length: one of `LENGTHS`: about 15, 30 or 60 words.

    Raises:
        ValueError: for another length.
    """
    if length not in LENGTHS:
        raise ValueError(f"length is {length!r}; allowed are {', '.join(LENGTHS)}")

    def fill(templates: Sequence[str], **slots: str) -> str:
        return _choose(templates, rng).format(**slots)

    domain, found = scene.domain, _in_order(scene)
    if length == "sentence":
        return fill(CAPTION, A_domain=capitalise(article(domain)), findings=_list(scene, rng))

    report = [fill(TECHNIQUE[domain], domain=domain)]
    report += [fill(FINDING, **_slots(scene, finding, rng)) for finding in found] or [fill(NORMAL)]
    absent = [kind for kind in KINDS[domain] if kind not in {finding.kind for finding in found}]
    report.append(fill(NEGATIVE, kinds=" or ".join(", ".join(absent).rsplit(", ", 1))))
    if length == "detailed":
        # two findings take more words, and leave room for less of the background
        topics = sorted(rng.permutation(4)[: 2 if len(found) == 2 else 3])
        report += [_choose(BACKGROUND[domain][topic], rng) for topic in topics]
        report.append(fill(IMPRESSION, findings=_list(scene, rng)))
    return " ".join(report)


def locate_finding(scene: Scene, finding: Finding, rng: np.random.Generator) -> str:
    """Write a finding of a scene with its place and extent: 'a cyst in the left upper zone, small in size'."""
    return LOCATED.format(**_slots(scene, finding, rng))


def make_dialogue(
    scene: Scene, rng: np.random.Generator, turns: int, probes: Sequence[Probe] = PROBES
) -> list[tuple[str, str]]:
    """Ask several questions about one picture with their answers, as (question, answer) pairs, no question twice."""
    askable = [(probe, answer) for probe in probes if (answer := probe.answer(scene)) is not None]
    chosen = [askable[i] for i in rng.permutation(len(askable))[:turns]]
    return [(_choose(probe.wordings, rng), answer) for probe, answer in chosen]


def sample_texts(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Write every kind of text once per scene: what a tokenizer for phantoms is trained on."""
    rng = np.random.default_rng(seed)
    texts = [request for requests in REQUESTS.values() for request in requests]
    for scene in scenes:
        texts += [write_report(scene, rng, length) for length in LENGTHS]
        texts += [part for pair in make_dialogue(scene, rng, 6) for part in pair]
    return texts


def write_controls(scenes: Sequence[Scene], reports: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Write what every table of descriptions is read against.

    Args:
        scenes: what is described.
        reports: a true report of each.
        seed: of the random order of words.

    Returns:
        By name, one text per scene: "reference", its report; "another picture", the report of the scene that
        `find_others` gives it, fluent and about something else; "word salad", the words of the reference in random
        order.

    Raises:
        ValueError: for fewer than two scenes.
    """
    rng = np.random.default_rng(seed)
    others = [reports[number] for number in find_others(scenes)]
    salad = [" ".join(rng.permutation(report.split())) for report in reports]
    return dict(zip(CONTROLS, (list(reports), others, salad), strict=True))


def find_others(scenes: Sequence[Scene]) -> list[int]:
    """Find for every scene the number of the next one of its domain, or of the next of any where it has none.

    Raises:
        ValueError: for fewer than two scenes.
    """
    if len(scenes) < 2:
        raise ValueError(f"{len(scenes)} pictures hold no other; give 2 or more")
    found = []
    for number, scene in enumerate(scenes):
        following = [*range(number + 1, len(scenes)), *range(number)]
        own = (one for one in following if scenes[one].domain == scene.domain)
        found.append(next(own, following[0]))
    return found


def _choose(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def _in_order(scene: Scene) -> list[Finding]:
    return sorted(scene.findings, key=lambda finding: list(KINDS[scene.domain]).index(finding.kind))


def name_kind(kind: str, grade: str) -> str:
    """Return a kind with its article, or in the plural where the grade counts several."""
    return article(kind) if choose_verb(grade) == "is" else f"{kind}s"


def choose_verb(grade: str) -> str:
    """Return "are" where the grade counts several, else "is"."""
    return "are" if grade in GRADES["count"][1:] else "is"


def capitalise(text: str) -> str:
    """Write the first letter large and leave the others."""
    return text[0].upper() + text[1:]


def _slots(scene: Scene, finding: Finding, rng: np.random.Generator) -> dict[str, str]:
    noun = name_kind(finding.kind, finding.grade)
    return {
        "noun": noun,
        "Noun": capitalise(noun),
        "be": choose_verb(finding.grade),
        "side": finding.side,
        "zone": finding.zone,
        "extent": _choose(EXTENTS[KINDS[scene.domain][finding.kind]], rng).format(grade=finding.grade),
    }


def _list(scene: Scene, rng: np.random.Generator) -> str:
    items = [locate_finding(scene, finding, rng) for finding in _in_order(scene)]
    return ", and ".join(items) or _choose(NO_FINDINGS, rng)
