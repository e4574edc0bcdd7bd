"""Phantoms: same facts, same pixels; a changed fact changes its own cell and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import CELLS, DOMAINS, GRADES, KINDS, SIDES, ZONES, Finding, Scene

DOMAIN_KINDS = [(domain, kind) for domain, kinds in KINDS.items() for kind in kinds]


def grades(domain: str, kind: str) -> tuple[str, ...]:
    return GRADES[KINDS[domain][kind]]


def changed(scene: Scene, *findings: Finding) -> np.ndarray:
    """How much each pixel changes when the scene shows these findings instead, (size, size)."""
    before, after = render(scene).astype(int), render(replace(scene, findings=findings)).astype(int)
    return np.abs(after - before).sum(axis=2)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_scene_is_one_picture_and_another_seed_another_of_similar_content(domain):
    first, second = (render(Scene(domain, (), seed)) for seed in (1, 2))
    assert first.shape == (72, 72, 3) and first.dtype == np.uint8
    assert np.array_equal(first, render(Scene(domain, (), 1)))
    assert (first != second).mean() > 0.5
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.2
    is_grey = (np.ptp(first, axis=2) == 0).all()
    assert is_grey == (domain in ("chest x-ray", "abdominal ct", "brain mri"))


@pytest.mark.parametrize(("domain", "kind"), DOMAIN_KINDS)
@pytest.mark.parametrize(("side", "zone"), CELLS)
def test_a_finding_changes_its_own_side_and_third_only(domain, kind, side, zone):
    for seed, grade in enumerate(grades(domain, kind)):
        difference = changed(Scene(domain, (), seed), Finding(kind, side, zone, grade))
        assert difference.max() > 40
        rows, columns = np.nonzero(difference)
        assert np.ptp(rows) <= 22 and np.ptp(columns) <= 29
        weights = difference[rows, columns]
        column, row = np.average(columns, weights=weights), np.average(rows, weights=weights)
        assert SIDES[int(column > 36)] == side and abs(column - 36) > 7
        assert ZONES[int(np.digitize(row, (26, 46)))] == zone


@pytest.mark.parametrize(("domain", "kind"), DOMAIN_KINDS)
def test_every_grade_looks_different_and_higher_severity_changes_more(domain, kind):
    sums = [
        [
            changed(Scene(domain, (), seed), Finding(kind, "right", "middle", grade)).sum()
            for grade in grades(domain, kind)
        ]
        for seed in range(8)
    ]
    mean = np.mean(sums, axis=0)
    assert np.all(mean[1:] > 1.2 * mean[:-1])


def test_findings_do_not_disturb_each_other():
    first, second = Finding("cyst", "left", "upper", "large"), Finding("tumour", "right", "lower", "small")
    empty = Scene("abdominal ct", (), 3)
    both = changed(empty, first, second)
    assert np.array_equal(both, changed(empty, first) + changed(empty, second))
    assert np.array_equal(both, changed(empty, second, first))


GLAND = Finding("gland", "left", "upper", "one")


@pytest.mark.parametrize(
    ("domain", "findings", "message"),
    [
        ("ultrasound", (), "domain 'ultrasound'.*histology"),
        ("histology", (replace(GLAND, kind="nodule"),), "kind 'nodule'.*gland"),
        ("histology", (replace(GLAND, side="top"),), "side 'top'.*left, right"),
        ("histology", (replace(GLAND, zone="apical"),), "zone 'apical'.*upper"),
        ("histology", (replace(GLAND, grade="severe"),), "grade 'severe'.*one, two, three"),
        ("histology", (GLAND, GLAND), "share a cell"),
    ],
)
def test_what_cannot_be_painted_is_refused_by_name(domain, findings, message):
    with pytest.raises(ValueError, match=message):
        render(Scene(domain, findings, 0))
