"""Facts in reports of phantoms: which a text claims, and how many of them are true.

`parse_report` takes a text apart into clauses and matches each with the templates of `reports`. A clause that none of
them could have written is not well-formed and claims nothing. The others claim the domain, each finding's kind, and
of a kind its side, zone and grade; that a kind is absent; that nothing is abnormal.

Claims are compared with the scene. Recall asks what of the truth was said, precision what of the said is true.
Repeating a fact gains nothing, and of two claims that contradict each other neither counts as true.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from medv_lab.phantoms.questions import ALL_GRADES, ALL_KINDS, article
from medv_lab.phantoms.reports import (
    BACKGROUND,
    CAPTION,
    EXTENTS,
    FINDING,
    IMPRESSION,
    LOCATED,
    NEGATIVE,
    NO_FINDINGS,
    NORMAL,
    TECHNIQUE,
    capitalise,
    choose_verb,
    name_kind,
)
from medv_lab.phantoms.scenes import DOMAINS, GRADES, KINDS, SIDES, ZONES, Scene

# ("domain", d), ("kind", k), ("side", k, s), ("zone", k, z), ("grade", k, g), ("normal",), ("absent", k)
Fact = tuple[str, ...]

_WORD = re.compile(r"[a-z-]+")
_DENIED = re.compile(r"\bno (?:sign of )?([a-z]+)")

# --- reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A fact that a text claims, and where in the text its word stands: [start, end) in characters."""

    fact: Fact
    start: int
    end: int


@dataclass(frozen=True)
class Clause:
    """A sentence of a text.

    Attributes:
        start, end: where it stands, in characters.
        role: "technique", "finding", "negative", "background", "impression" or "caption"; None if the grammar could
            not have written it.
        claims: what it says, word by word; empty without a role.
        content: of two clauses with the same role and content, the second says nothing new.
    """

    start: int
    end: int
    role: str | None
    claims: tuple[Claim, ...]
    content: object


@dataclass(frozen=True)
class ParsedReport:
    """A text as the grammar reads it."""

    text: str
    clauses: tuple[Clause, ...]

    @cached_property
    def facts(self) -> frozenset[Fact]:
        """Everything that well-formed clauses claim."""
        return frozenset(claim.fact for clause in self.clauses for claim in clause.claims)

    @property
    def well_formed(self) -> float:
        """Share of the words that stand in well-formed clauses, in [0, 1]; 0 for an empty text."""
        words = [(clause.role is not None, len(self._of(clause).split())) for clause in self.clauses]
        return sum(count for good, count in words if good) / max(1, sum(count for _, count in words))

    @property
    def repeated(self) -> float:
        """Share of the clauses that say in the same role what an earlier one said, in [0, 1]."""
        return (len(self.clauses) - len(self.new_clauses)) / max(1, len(self.clauses))

    @property
    def new_clauses(self) -> tuple[Clause, ...]:
        """The clauses that no earlier one said in the same role."""
        first: dict[object, Clause] = {}
        for clause in self.clauses:
            first.setdefault((clause.role, clause.content), clause)
        return tuple(first.values())

    @cached_property
    def contradicted(self) -> frozenset[Fact]:
        """The claims of which another claim of the same text says the opposite."""
        pairs = (pair for pair in combinations(sorted(self.facts), 2) if _contradict(*pair))
        return frozenset(fact for pair in pairs for fact in pair)

    def _of(self, clause: Clause) -> str:
        return self.text[clause.start : clause.end]


def parse_report(text: str) -> ParsedReport:
    """Read a text by the grammar, clause by clause; without its full stop a clause is not well-formed."""
    return ParsedReport(text, tuple(_read_clause(found) for found in _SENTENCE.finditer(text)))


def _contradict(one: Fact, other: Fact) -> bool:
    """Return whether two different facts cannot hold of one picture; a kind is in it once, or not at all."""
    kinds = {one[0], other[0]}
    if kinds in ({"kind", "absent"}, {"kind", "normal"}):
        return "normal" in kinds or one[1] == other[1]
    return one[0] == other[0] and one[0] in ("domain", "side", "zone", "grade") and one[1:-1] == other[1:-1]


def _read_clause(found: re.Match[str]) -> Clause:
    (start, end), sentence = found.span(), found.group()
    if sentence in _TOPIC_OF:
        return Clause(start, end, "background", (), _TOPIC_OF[sentence])
    for role, template in _TEMPLATES:
        match = template.fullmatch(found.string, start, end)
        if match is not None and (claims := _read_claims(match)):
            return Clause(start, end, role, claims, frozenset(claim.fact for claim in claims))
    return Clause(start, end, None, (), sentence)


def _read_claims(match: re.Match[str]) -> tuple[Claim, ...]:
    """Return the claims of a sentence in a template's wording; none where its slots do not agree with each other."""
    claims, slots = [], {slot: match.span(slot) for slot, text in match.groupdict().items() if text}
    if "domain" in slots:
        said = match["domain"].lower()
        domain = next(one for one in DOMAINS if one in said)
        at = match.start("domain") + said.index(domain)  # behind its article
        claims.append(Claim(("domain", domain), at, at + len(domain)))
    if "normal" in slots:
        claims.append(Claim(("normal",), *slots["normal"]))
    if "kinds" in slots:
        denied = list(_KIND.finditer(match.string, *slots["kinds"]))
        claims += [Claim(("absent", kind.group()), *kind.span()) for kind in denied]
        if len({kind.group() for kind in denied}) < len(denied):
            return ()
    items = _ITEM.finditer(match.string, *slots["findings"]) if "findings" in slots else ()
    for item in [match] if "noun" in slots else items:
        if not (finding := _read_finding(item)):
            return ()
        claims += finding
    return tuple(claims)


def _read_finding(match: re.Match[str]) -> list[Claim]:
    """Return the claims about one finding; none if noun, verb and extent do not agree."""
    noun, extent = match["noun"].lower(), match["extent"]
    grade = next(word for word in extent.split() if word in ALL_GRADES)
    kind = next((kind for kind in ALL_KINDS if name_kind(kind, grade) == noun), None)
    scales = {kinds[kind] for kinds in KINDS.values() if kind in kinds}
    if all(grade not in GRADES[scale] for scale in scales):
        return []
    if match.groupdict().get("be", choose_verb(grade)) != choose_verb(grade):
        return []
    at, extent_at = match.start("noun") + noun.index(kind), match.start("extent") + extent.index(grade)
    return [
        Claim(("kind", kind), at, at + len(kind)),
        Claim(("side", kind, match["side"]), *match.span("side")),
        Claim(("zone", kind, match["zone"]), *match.span("zone")),
        Claim(("grade", kind, grade), extent_at, extent_at + len(grade)),
    ]


def _any(options: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(set(options), key=len, reverse=True)))


def _group(name: str, options: Iterable[str]) -> str:
    return f"(?P<{name}>{_any(options)})"


def _without_names(pattern: str) -> str:
    return re.sub(r"\?P<\w+>", "?:", pattern)


def _compile(template: str, **slots: str) -> re.Pattern[str]:
    """Turn a template into a pattern with a group for every slot."""
    parts = re.split(r"\{(\w+)\}", template)
    patterns = _PATTERNS | slots
    return re.compile(
        "".join(patterns[part] if number % 2 else re.escape(part) for number, part in enumerate(parts))
    )


_NOUNS = [name_kind(kind, grade) for kind in ALL_KINDS for grade in ("one", "two")]
_PATTERNS = {
    "noun": _group("noun", _NOUNS),
    "Noun": _group("noun", map(capitalise, _NOUNS)),
    "be": _group("be", ("is", "are")),
    "side": _group("side", SIDES),
    "zone": _group("zone", ZONES),
    "extent": _group(
        "extent",
        (
            wording.format(grade=grade)
            for scale, wordings in EXTENTS.items()
            for wording in wordings
            for grade in GRADES[scale]
        ),
    ),
    "A_domain": _group("domain", (capitalise(article(domain)) for domain in DOMAINS)),
}
_ITEM, _KIND = _compile(LOCATED), re.compile(_any(ALL_KINDS))
_PATTERNS["kinds"] = f"(?P<kinds>(?:(?:{_KIND.pattern}), )*(?:{_KIND.pattern})(?: or (?:{_KIND.pattern}))?)"
_PATTERNS["findings"] = (
    f"(?:(?P<findings>{_without_names(_ITEM.pattern)}(?:, and {_without_names(_ITEM.pattern)})*)"
    f"|{_group('normal', NO_FINDINGS)})"
)
_TOPIC_OF = {
    wording: (domain, number)
    for domain, topics in BACKGROUND.items()
    for number, topic in enumerate(topics)
    for wording in topic
}
_TEMPLATES = [
    *(
        ("technique", _compile(template, domain=_group("domain", (domain,))))
        for domain, templates in TECHNIQUE.items()
        for template in templates
    ),
    ("finding", re.compile(_group("normal", NORMAL))),
    *(("finding", _compile(template)) for template in FINDING),
    *(("negative", _compile(template)) for template in NEGATIVE),
    *(("impression", _compile(template)) for template in IMPRESSION),
    *(("caption", _compile(template)) for template in CAPTION),
]
_SENTENCE = re.compile(r"[^\s.][^.\n]*\.?")


# --- scoring ----------------------------------------------------------------------------------------------


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


def score_facts(text: str, scene: Scene) -> FactScore:
    """Score precision and recall of a description's claims; a description that claims nothing has neither."""
    report, truth = parse_report(text), true_facts(scene)
    right = {fact for fact in report.facts - report.contradicted if _is_true(fact, scene)}
    precision = len(right) / len(report.facts) if report.facts else 0.0
    return FactScore(precision, len(right & truth) / len(truth))


def score_description(text: str, scene: Scene) -> dict[str, float]:
    """Score a description in all that is reported of one, in percent.

    Returns:
        facts, precision, recall: see `score_facts`; well-formed: share of the words in well-formed clauses; repeated:
        share of the clauses that say again what an earlier one said; contradictions: 100 if any claim is
        contradicted by another one, else 0.
    """
    report, score = parse_report(text), score_facts(text, scene)
    return {
        "facts": 100 * score.f1,
        "precision": 100 * score.precision,
        "recall": 100 * score.recall,
        "well-formed": 100 * report.well_formed,
        "repeated": 100 * report.repeated,
        "contradictions": 100.0 * bool(report.contradicted),
    }


def read_reply(text: str, scene: Scene) -> set[Fact]:
    """Read the claims of a reply to one question, which need be no sentence and need not name the finding again.

    Where no clause is well-formed, a domain or a kind that is named counts, and if the picture has exactly one finding,
    sides, zones and grades are that finding's: "On the left." claims its side.
    """
    report = parse_report(text)
    if report.facts:
        return set(report.facts)
    said = text.lower()
    words, denied = set(_WORD.findall(said)), set(_DENIED.findall(said))
    claims: set[Fact] = {("domain", domain) for domain in DOMAINS if domain in said}
    for kind in ALL_KINDS:
        if (names := {kind, f"{kind}s"}) & words:
            claims.add(("absent" if names & denied else "kind", kind))
    if len(scene.findings) == 1:
        kind = scene.findings[0].kind
        slots = {"side": SIDES, "zone": ZONES, "grade": ALL_GRADES}
        claims |= {
            (slot, kind, value) for slot, values in slots.items() for value in values if value in words
        }
    return claims


def mark_claims(text: str, scene: Scene) -> list[tuple[int, int, bool]]:
    """Mark every word that makes a claim with whether the picture bears it out, in order.

    A claim is bound to its clause: a side, zone or grade is true of the finding that its clause names, or of none, and
    what another clause says changes nothing, not even a contradiction (`score_facts` trusts neither then). Words of a
    clause that is not well-formed claim nothing, and neither does a clause that says in the same role what an earlier
    one said.

    Returns:
        (start, end, is true) in characters; neighbours that are alike are joined.
    """
    marks: list[tuple[int, int, bool]] = []
    for clause in parse_report(text).new_clauses:
        for claim in sorted(clause.claims, key=lambda claim: claim.start):
            is_true = _is_true(claim.fact, scene)
            if marks and marks[-1][2] == is_true and not text[marks[-1][1] : claim.start].strip():
                marks[-1] = (marks[-1][0], claim.end, is_true)
            else:
                marks.append((claim.start, claim.end, is_true))
    return marks


def _is_true(fact: Fact, scene: Scene) -> bool:
    if fact[0] == "absent":
        return all(finding.kind != fact[1] for finding in scene.findings)
    return fact in true_facts(scene)
