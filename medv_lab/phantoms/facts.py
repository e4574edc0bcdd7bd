"""Facts in a description of a phantom, and how many of them are true.

A description is read as claims: the domain, each finding's kind, and of a kind its side, zone and grade; that a
kind is absent; that nothing is abnormal. Claims are compared with the scene. Recall asks what of the truth was
said, precision what of the said is true: repeating a fact gains nothing, contradicting it costs. `mark_claims` finds
the claims again word by word, so that a picture of the text can mark them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medv_lab.phantoms.questions import ALL_GRADES, ALL_KINDS
from medv_lab.phantoms.scenes import DOMAINS, SIDES, ZONES, Scene

# ("domain", d), ("kind", k), ("side", k, s), ("zone", k, z), ("grade", k, g), ("normal",), ("absent", k)
Fact = tuple[str, ...]

_PART = re.compile(r"(?:(?!\band\b)[^.:\n])+", re.IGNORECASE)
_WORD = re.compile(r"[a-z-]+")
_ABSENT = re.compile(r"\bno (?:sign of )?([a-z]+)")
_NORMAL = re.compile(r"\bno abnormal|\bnormal (?:findings)?|\bimage is normal")
_DOMAIN_WORDS = {"gross pathology": "gross", "chest x-ray": "x-ray", "abdominal ct": "ct", "brain mri": "mri"}


@dataclass(frozen=True)
class FactScore:
    """How true and how complete a description is; all in [0, 1]."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean: the fact score."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def true_facts(scene: Scene) -> set[Fact]:
    """Return what a complete description says: domain, and each finding's kind, side, zone, grade, or 'normal'."""
    facts: set[Fact] = {("domain", scene.domain)}
    for finding in scene.findings:
        kind = finding.kind
        facts |= {("kind", kind), ("side", kind, finding.side), ("zone", kind, finding.zone)}
        facts.add(("grade", kind, finding.grade))
    return facts if scene.findings else facts | {("normal",)}


def read_facts(text: str) -> set[Fact]:
    """Read the claims of a description, positive and negative ("absent", kind).

    A kind takes the grade right before it and the side and zone of its own part of the sentence; parts are split at
    'and'. What is not understood claims nothing.
    """
    facts: set[Fact] = set()
    words = set(_WORD.findall(text.lower()))
    facts |= {("domain", domain) for domain in DOMAINS if _DOMAIN_WORDS.get(domain, domain) in words}
    for sentence in re.split(r"[.:\n]", text.lower()):
        absent = {kind for word in _ABSENT.findall(sentence) if (kind := _kind(word))}
        facts |= {("absent", kind) for kind in absent}
        if _NORMAL.search(sentence):
            facts.add(("normal",))
        parts = re.split(r"\band\b", sentence)
        facts |= {fact for part in parts for fact in _finding_facts(part) if fact[1] not in absent}
    return facts


def read_reply(text: str, scene: Scene) -> set[Fact]:
    """Read the claims of a reply to one question, which need not name the finding again.

    Where the picture has exactly one finding and the reply names no kind, sides, zones and grades are that
    finding's: "On the left." claims its side.
    """
    claims = read_facts(text)
    if len(scene.findings) != 1 or any(claim[0] in ("kind", "absent") for claim in claims):
        return claims
    kind, words = scene.findings[0].kind, set(_WORD.findall(text.lower()))
    slots = {"side": SIDES, "zone": ZONES, "grade": ALL_GRADES}
    return claims | {
        (name, kind, value) for name, values in slots.items() for value in values if value in words
    }


def score_facts(text: str, scene: Scene) -> FactScore:
    """Score precision and recall of a description's claims; a description that claims nothing has neither."""
    claims, truth = read_facts(text), true_facts(scene)
    right = sum(_is_true(claim, scene) for claim in claims)
    return FactScore(right / len(claims) if claims else 0.0, len(claims & truth) / len(truth))


def _is_true(claim: Fact, scene: Scene) -> bool:
    if claim[0] == "absent":
        return all(finding.kind != claim[1] for finding in scene.findings)
    return claim in true_facts(scene)


def mark_claims(text: str, scene: Scene) -> list[tuple[int, int, bool]]:
    """Return (start, end, is true) of every word that takes part in a claim, in order; neighbours of a kind are joined.

    A word that takes part in a true and an untrue claim is untrue.
    """
    marks: list[tuple[int, int, bool]] = []
    for part in _PART.finditer(text):
        claims = read_facts(part.group())
        for word in _WORD.finditer(part.group().lower()):
            own = [claim for claim in claims if _names(claim, word.group())]
            if not own:
                continue
            is_true = all(_is_true(claim, scene) for claim in own)
            start, end = part.start() + word.start(), part.start() + word.end()
            if marks and marks[-1][2] == is_true and not text[marks[-1][1] : start].strip():
                marks[-1] = (marks[-1][0], end, is_true)
            else:
                marks.append((start, end, is_true))
    return marks


def _finding_facts(part: str) -> Iterable[Fact]:
    words = _WORD.findall(part)
    cells = [("side", word) for word in words if word in SIDES]
    cells += [("zone", word) for word in words if word in ZONES]
    for number, word in enumerate(words):
        kind = _kind(word)
        if kind is None:
            continue
        yield ("kind", kind)
        if number and words[number - 1] in ALL_GRADES:
            yield ("grade", kind, words[number - 1])
        yield from ((name, kind, value) for name, value in cells)


def _kind(word: str) -> str | None:
    """Return the kind that a word names, in singular or plural."""
    return next((kind for kind in (word, word.removesuffix("s")) if kind in ALL_KINDS), None)


def _names(claim: Fact, word: str) -> bool:
    """Return whether a word is the one that makes a claim."""
    if claim[0] == "normal":
        return word in ("normal", "abnormal", "abnormality", "abnormalities")
    if claim[0] == "domain":
        return word in claim[1].split()
    return claim[-1] in (word, word.removesuffix("s"))
