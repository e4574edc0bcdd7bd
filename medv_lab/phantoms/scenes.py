"""Ground truth of phantoms: what a picture shows, before any pixel or word exists.

A `Scene` is one picture's facts. Sides are image sides (`left` is the left half of the picture), zones are
thirds of the organ from top to bottom, and every finding sits in a cell (side, zone) of its own. Pictures are
painted from scenes by `rendering`, words are written from them by `reports` and `questions`; neither reads the other.

Splits draw from disjoint seeds. `HELD_OUT` names one cell for every (domain, kind): such combinations are
never seen in train, validation or test, and make up the `compositional` split.
"""

from dataclasses import dataclass

import numpy as np

DOMAINS = ("chest x-ray", "abdominal ct", "brain mri", "histology", "gross pathology")
KINDS = {
    "chest x-ray": {"nodule": "count", "consolidation": "severity", "cavity": "size", "fibrosis": "severity"},
    "abdominal ct": {"cyst": "size", "calcification": "count", "haemorrhage": "severity", "tumour": "size"},
    "brain mri": {"infarct": "severity", "tumour": "size", "plaque": "count", "oedema": "severity"},
    "histology": {"gland": "count", "vessel": "size", "necrosis": "severity", "inflammation": "severity"},
    "gross pathology": {"tumour": "size", "haemorrhage": "severity", "cyst": "count", "ulcer": "size"},
}
GRADES = {
    "size": ("small", "large"),
    "severity": ("mild", "moderate", "severe"),
    "count": ("one", "two", "three"),
}
SIDES = ("left", "right")
ZONES = ("upper", "middle", "lower")
CELLS = tuple((side, zone) for side in SIDES for zone in ZONES)
SPLITS = ("train", "validation", "test", "compositional")

HELD_OUT = {
    (domain, kind): CELLS[(4 * d + 5 * k) % len(CELLS)]
    for d, domain in enumerate(DOMAINS)
    for k, kind in enumerate(KINDS[domain])
}
FINDING_COUNT_PROBABILITIES = (0.12, 0.63, 0.25)  # none, one, two findings


@dataclass(frozen=True)
class Finding:
    """One finding: its kind, its cell (side, zone) and its grade (a size, a severity or a count)."""

    kind: str
    side: str
    zone: str
    grade: str


@dataclass(frozen=True)
class Scene:
    """The facts of one picture, and the seed of everything in it that is not a fact."""

    domain: str
    findings: tuple[Finding, ...]
    seed: int


def make_scene(split: str, index: int) -> Scene:
    """Draw scene number `index` of a split; the same arguments always give the same scene.

    Args:
        split: one of `SPLITS`.
        index: from 0; domains take turns, so any run of five consecutive scenes has all five.

    Raises:
        ValueError: for an unknown split or a negative index.
    """
    if split not in SPLITS or index < 0:
        raise ValueError(
            f"no scene {index} of split {split!r}: the splits are {', '.join(SPLITS)}, indices start at 0"
        )
    rng = np.random.default_rng([SPLITS.index(split), index])
    domain = DOMAINS[index % len(DOMAINS)]
    kinds = list(KINDS[domain])
    if split == "compositional":
        chosen = [kinds[index // len(DOMAINS) % len(kinds)]]
        cells = [HELD_OUT[domain, chosen[0]]]
    else:
        count = rng.choice(len(FINDING_COUNT_PROBABILITIES), p=FINDING_COUNT_PROBABILITIES)
        chosen = [kinds[i] for i in rng.permutation(len(kinds))[:count]]
        cells = []
        for kind in chosen:  # a free cell, never the one held out for the kind
            free = [cell for cell in CELLS if cell != HELD_OUT[domain, kind] and cell not in cells]
            cells.append(free[rng.integers(len(free))])
    findings = tuple(
        Finding(kind, side, zone, str(rng.choice(GRADES[KINDS[domain][kind]])))
        for kind, (side, zone) in zip(chosen, cells, strict=True)
    )
    return Scene(domain, findings, int(rng.integers(2**31)))


def make_scenes(split: str, count: int) -> list[Scene]:
    """Draw the first `count` scenes of a split."""
    return [make_scene(split, index) for index in range(count)]
