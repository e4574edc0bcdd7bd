"""The grammar of reports: what it writes is true, and it reads back what it wrote and nothing else."""

import re

import numpy as np
import pytest

from medv_lab.phantoms.facts import parse_report, score_description
from medv_lab.phantoms.reports import LENGTHS, find_others, write_controls, write_report
from medv_lab.phantoms.scenes import KINDS, Finding, Scene, make_scenes

SCENES = make_scenes("train", 500)
WORDS = {"sentence": (6, 30), "brief": (17, 45), "detailed": (35, 85)}
ROLES = {
    "sentence": r"caption",
    "brief": r"technique (finding )+negative",
    "detailed": r"technique (finding )+negative (background ){2,3}impression",
}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_report_has_the_order_and_the_length_that_were_asked_for(length):
    rng = np.random.default_rng(0)
    for scene in SCENES:
        text = write_report(scene, rng, length)
        roles = " ".join(str(clause.role) for clause in parse_report(text).clauses)
        assert re.fullmatch(ROLES[length], roles), text
        low, high = WORDS[length]
        assert low <= len(text.split()) <= high


def test_another_length_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="'long'.*sentence, brief, detailed"):
        write_report(SCENES[0], np.random.default_rng(0), "long")


def test_wording_varies_and_facts_do_not():
    rng = np.random.default_rng(0)
    texts = {write_report(SCENES[0], rng) for _ in range(50)}
    assert len(texts) > 40
    assert len({parse_report(text).facts for text in texts}) == 1


def test_a_kind_is_named_before_its_extent_and_all_absent_kinds_are_denied():
    rng = np.random.default_rng(1)
    for scene in SCENES:
        report = parse_report(write_report(scene, rng))
        at = {
            fact: claim.start for clause in report.clauses for claim in clause.claims for fact in [claim.fact]
        }
        denied = {fact[1] for fact in report.facts if fact[0] == "absent"}
        present = {finding.kind for finding in scene.findings}
        assert denied == set(KINDS[scene.domain]) - present
        assert all(at["kind", f.kind] < at["grade", f.kind, f.grade] for f in scene.findings)


@pytest.mark.parametrize(
    "text",
    [
        "There is an cyst in the left upper zone, small in size.",
        "There are a cyst in the left upper zone, small in size.",
        "There are nodules in the left upper zone, one in number.",
        "There is a nodule in the left upper zone, small in size.",
        "There is oedema in the left upper zone, two in number.",
        "There is a cyst in the left upper zone, small in size",
        "The the left upper zone shows a cyst, small in size.",
        "There is no cyst, cyst or tumour.",
        "This is a abdominal ct.",
        "cyst small left upper.",
        "there is no cyst.",
    ],
)
def test_what_the_grammar_cannot_write_is_not_well_formed_and_claims_nothing(text):
    report = parse_report(text)
    assert (report.well_formed, report.facts) == (0, frozenset())


def test_well_formed_is_a_share_of_the_words():
    report = parse_report("This is a brain mri. The the brain cyst.")
    assert report.well_formed == pytest.approx(5 / 9)
    assert report.facts == {("domain", "brain mri")}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("This is a brain mri. This is a brain mri.", 1 / 2),
        ("This is a brain mri. A brain mri slice is shown.", 1 / 2),  # the same in other words
        ("The skull surrounds the brain as a ring. A ring around the brain is the skull.", 1 / 2),
        ("The brain the. The brain the. The brain.", 1 / 3),
        ("There is no cyst. Impression: no abnormality. There is no tumour.", 0),
        ("", 0),
    ],
)
def test_a_clause_is_repeated_if_an_earlier_one_of_its_role_said_the_same(text, share):
    assert parse_report(text).repeated == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "There is no cyst. The left upper zone shows a cyst, small in size.",
            {("absent", "cyst"), ("kind", "cyst")},
        ),
        ("The image is normal. Impression: normal findings.", set()),
        (
            "The left upper zone shows a cyst, small in size. The left lower zone shows a cyst, small in size.",
            {("zone", "cyst", "upper"), ("zone", "cyst", "lower")},
        ),
        (
            "The left upper zone shows a cyst, small in size. Impression: no abnormality.",
            {("normal",), ("kind", "cyst")},
        ),
        ("This is a brain mri. This is a chest x-ray.", {("domain", "brain mri"), ("domain", "chest x-ray")}),
        ("There is no cyst. The left upper zone shows an ulcer, small in size.", set()),
    ],
)
def test_contradicted_claims_are_those_with_an_opposite_in_the_same_text(text, facts):
    assert parse_report(text).contradicted == facts


def test_claims_stand_where_their_words_are():
    scene = Scene("chest x-ray", (Finding("nodule", "left", "upper", "two"),), 0)
    rng = np.random.default_rng(2)
    for length in LENGTHS:
        text = write_report(scene, rng, length)
        for clause in parse_report(text).clauses:
            for claim in clause.claims:
                assert claim.fact[-1] in text[claim.start : claim.end].lower()


def test_controls_are_as_good_and_as_bad_as_they_should_be():
    scenes, rng = make_scenes("test", 300), np.random.default_rng(0)
    reports = [write_report(scene, rng) for scene in scenes]
    scores = {
        name: [score_description(text, scene) for text, scene in zip(texts, scenes, strict=True)]
        for name, texts in write_controls(scenes, reports, 0).items()
    }
    mean = {
        name: {key: np.mean([row[key] for row in rows]) for key in rows[0]} for name, rows in scores.items()
    }
    assert mean["reference"]["facts"] == mean["reference"]["well-formed"] == 100
    assert mean["reference"]["repeated"] == mean["reference"]["contradictions"] == 0
    assert mean["word salad"]["facts"] <= 10
    assert mean["another picture"]["well-formed"] == 100
    assert 10 < mean["another picture"]["facts"] < 50


def test_another_picture_is_the_next_of_its_domain_if_there_is_one():
    scenes = make_scenes("test", 12)
    others = find_others(scenes)
    assert sorted(others) == list(range(12))
    assert all(scenes[one].domain == scene.domain for one, scene in zip(others, scenes, strict=True))
    assert others[0] == 5  # the domains take turns
    assert find_others(scenes[:3]) == [1, 2, 0]
    with pytest.raises(ValueError, match="1 pictures hold no other"):
        find_others(scenes[:1])
