"""Where a description of a phantom says something that can be checked, and whether it is true there.

The claims are those of `facts`, found again word by word, so that a picture of the text can mark them.
"""

import re

from medv_lab.phantoms.facts import Fact, read_facts, true_facts
from medv_lab.phantoms.scenes import Scene

_PART = re.compile(r"(?:(?!\band\b)[^.:\n])+", re.IGNORECASE)
_WORD = re.compile(r"[a-z-]+")


def mark_claims(text: str, scene: Scene) -> list[tuple[int, int, bool]]:
    """(start, end, is true) of every word that takes part in a claim, in order; neighbours of one kind are joined.

    A word that takes part in a true and an untrue claim is untrue.
    """
    truth = true_facts(scene)
    present = {finding.kind for finding in scene.findings}
    marks: list[tuple[int, int, bool]] = []
    for part in _PART.finditer(text):
        claims = read_facts(part.group())
        for word in _WORD.finditer(part.group().lower()):
            own = [claim for claim in claims if _names(claim, word.group())]
            if not own:
                continue
            is_true = all(
                claim in truth or (claim[0] == "absent" and claim[1] not in present) for claim in own
            )
            start, end = part.start() + word.start(), part.start() + word.end()
            if marks and marks[-1][2] == is_true and not text[marks[-1][1] : start].strip():
                marks[-1] = (marks[-1][0], end, is_true)
            else:
                marks.append((start, end, is_true))
    return marks


def _names(claim: Fact, word: str) -> bool:
    """Whether a word is the one that makes a claim."""
    if claim[0] == "normal":
        return word in ("normal", "abnormal", "abnormality", "abnormalities")
    if claim[0] == "domain":
        return word in claim[1].split()
    return claim[-1] in (word, word.removesuffix("s"))
