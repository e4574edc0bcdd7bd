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
@pytest.mark.parametrize("size", [24, 72, 100])
def test_render_gives_the_same_rgb_bytes_every_time(domain, size):
    kind = next(iter(KINDS[domain]))
    scene = Scene(domain, (Finding(kind, "left", "upper", grades(domain, kind)[0]),), 5)
    picture = render(scene, size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, render(scene, size))


@pytest.mark.parametrize("domain", DOMAINS)
def test_another_seed_is_another_picture_of_similar_content(domain):
    first, second = (render(Scene(domain, (), seed)).astype(int) for seed in (1, 2))
    assert (first != second).mean() > 0.5
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.2


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


def test_radiology_is_grey_and_tissue_is_not():
    for domain in DOMAINS:
        picture = render(Scene(domain, (), 0)).astype(int)
        spread = np.ptp(picture, axis=2).mean()
        assert (spread == 0) == (domain in ("chest x-ray", "abdominal ct", "brain mri"))


@pytest.mark.parametrize(
    ("scene", "size", "message"),
    [
        (Scene("ultrasound", (), 0), 72, "unknown domain 'ultrasound'.*'histology'"),
        (Scene("histology", (), -1), 72, "seed -1"),
        (Scene("histology", (), 0), 8, "size 8.*at least 24"),
        (
            Scene("histology", (Finding("nodule", "left", "upper", "one"),), 0),
            72,
            "kind 'nodule' in a histology.*gland",
        ),
        (Scene("histology", (Finding("gland", "top", "upper", "one"),), 0), 72, "side 'top'.*left, right"),
        (Scene("histology", (Finding("gland", "left", "apical", "one"),), 0), 72, "zone 'apical'.*upper"),
        (
            Scene("histology", (Finding("gland", "left", "upper", "severe"),), 0),
            72,
            "grade 'severe'.*one, two, three",
        ),
        (Scene("histology", (Finding("gland", "left", "upper", "one"),) * 2, 0), 72, "share a cell"),
    ],
)
def test_what_cannot_be_painted_is_refused_by_name(scene, size, message):
    with pytest.raises(ValueError, match=message):
        render(scene, size)
