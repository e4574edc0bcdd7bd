"""Chest x-ray, abdominal CT and brain MRI: backgrounds and findings, painted in grey.

A background is made in organ coordinates u (to the image's right) and v (down), pixels from the
organ's middle. A finding gets its spot and the index of its grade.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from medv_lab.phantoms.painting import Spot, blend, dots, ellipse, inside, lines, lobed, smooth_noise

RADII = (4.0, 7.6)  # small, large
STRENGTHS = (0.38, 0.66, 1.0)  # mild, moderate, severe: contrast ...
EXTENTS = (4.2, 5.6, 7.0)  # ... and half height of the patch


@dataclass(frozen=True)
class DomainPainter:
    """Looks of one domain.

    Attributes:
        background: (u, v, rng) -> float32 picture in 0..1, grey (S, S) or colour (S, S, 3).
        findings: kind -> painter of a finding, called with its spot and the index of its grade.
        cell_offset: pixels from the organ's middle to the outer cells' centres, across and down.
        cell_half: half width and half height of a cell.
    """

    background: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
    findings: Mapping[str, Callable[[Spot, int], None]]
    cell_offset: tuple[float, float]
    cell_half: tuple[float, float]


# --- chest x-ray -----------------------------------------------------------------------------------------


def _chest(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = 0.5 + 0.03 * smooth_noise(rng, u.shape, (6, 6))
    body = inside(np.maximum(np.abs(u) - 34 + 0.002 * (v + 6) ** 2, -v - 33), 3)
    picture = np.float32(0.06) + body * picture
    width, height, dome = rng.uniform(13.5, 15), rng.uniform(29, 31), rng.uniform(23, 26)
    for side in (-1, 1):
        lung = np.maximum(
            ellipse(side * u - 17, v - 3, width, height), v - dome + 0.02 * (side * u - 15) ** 2
        )
        blend(picture, inside(lung, 2.5), 0.2)
    slope = rng.uniform(0.010, 0.016)
    ribs = lines(v + slope * 20 * np.abs(u) - slope * u * u + rng.uniform(0, 8), 8.4, 2.4)
    picture += 0.075 * ribs * inside(np.abs(np.abs(u) - 17) - 15, 4) * inside(v - 26, 4)
    mediastinum = inside(np.abs(u) - rng.uniform(3.8, 5), 3)
    blend(picture, 0.9 * mediastinum * body, 0.72)
    heart = inside(ellipse(u - rng.uniform(2.5, 4), v - 13, rng.uniform(8.5, 10), rng.uniform(10, 12)), 3)
    blend(picture, 0.9 * heart, 0.7)
    picture += 0.06 * inside(np.abs(u) - 2, 2) * np.sin(v * 1.5) * body
    return picture + 0.02 * smooth_noise(rng, u.shape, (18, 18))


def _nodule(spot: Spot, grade: int) -> None:
    centres = spot.centres(grade + 1)
    spot.paint(dots(spot.x, spot.y, centres, np.full(len(centres), 2.7, np.float32)), 0.86)


def _consolidation(spot: Spot, grade: int) -> None:
    mottled = np.clip(0.92 + 0.1 * spot.noise(3.0), 0, 1)
    spot.paint((0.08 + 0.92 * STRENGTHS[grade]) * mottled * spot.patch(EXTENTS[grade] + 0.8), 0.74)


def _cavity(spot: Spot, grade: int) -> None:
    outline = lobed(*spot.grid, RADII[grade], spot.rng, 0.06, (2, 3))
    spot.paint(inside(outline), 0.88)
    spot.paint(inside(outline + (2.0, 2.4)[grade]), 0.04)


def _fibrosis(spot: Spot, grade: int) -> None:
    x, y = spot.grid
    wobble = 0.5 * spot.noise(6.0)
    tilt = spot.rng.uniform(0.85, 1.15)
    spacing = (5.2, 4.6, 4.0)[grade]
    hatch = np.maximum(
        lines(tilt * x + y + wobble, spacing * 1.3, 1.7), lines(x - tilt * y + wobble, spacing * 1.3, 1.7)
    )
    spot.paint((0.2 + 0.75 * STRENGTHS[grade]) * hatch * spot.patch(EXTENTS[grade] + 0.9, 0.4), 0.92)


# --- abdominal CT ----------------------------------------------------------------------------------------


def _abdomen(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = np.full(u.shape, 0.02, np.float32)
    width, height = rng.uniform(33, 34.5), rng.uniform(29.5, 31.5)
    texture = 0.025 * smooth_noise(rng, u.shape, (16, 16))
    blend(picture, inside(ellipse(u, v, width, height)), 0.24)
    blend(
        picture,
        inside(ellipse(u, v, width - rng.uniform(2.2, 3.2), height - rng.uniform(2.2, 3.2))),
        0.4 + texture,
    )
    liver = inside(lobed(u + 14, v + 5, rng.uniform(15.5, 17), rng, 0.1, (2, 3)), 1.8)
    blend(picture, liver, 0.5 + texture)
    spleen = inside(ellipse(u - 20, v + 4, rng.uniform(7.5, 9), rng.uniform(10, 12)), 1.8)
    blend(picture, spleen, 0.53 + texture)
    blend(
        picture, inside(ellipse(u - 7, v + 14, rng.uniform(7, 8.5), rng.uniform(5.5, 7)), 1.8), 0.44 + texture
    )
    for side in (-1, 1):
        blend(
            picture,
            inside(ellipse(u - side * 15, v - 15, rng.uniform(5, 6), rng.uniform(6.5, 7.5)), 1.6),
            0.58,
        )
    spine_v = rng.uniform(17, 18)
    blend(picture, inside(ellipse(u, v - spine_v, 5.2, 4.6)), 0.86)
    blend(picture, inside(np.abs(u) - 1.2) * inside(np.abs(v - spine_v - 7) - 3.4), 0.8)
    blend(picture, inside(ellipse(u, v - spine_v - 4.4, 1.8, 1.6)), 0.45)
    blend(picture, inside(ellipse(u - 1.5, v - spine_v + 7.4, 2.3, 2.3)), 0.66)
    return picture


def _ct_cyst(spot: Spot, grade: int) -> None:
    x, y = spot.grid
    distance = np.hypot(x, y) - RADII[grade]
    spot.paint(inside(distance), 0.1)


def _calcification(spot: Spot, grade: int) -> None:
    centres = spot.centres(grade + 1)
    spot.paint(dots(spot.x, spot.y, centres, np.full(len(centres), 1.75, np.float32)), 1.0)


def _ct_haemorrhage(spot: Spot, grade: int) -> None:
    spot.paint((0.12 + 0.88 * STRENGTHS[grade]) * spot.patch(EXTENTS[grade] + 0.4, 1.3), 0.9)


def _ct_tumour(spot: Spot, grade: int) -> None:
    outline = lobed(*spot.grid, RADII[grade] * 0.95, spot.rng, 0.26, (4, 6))
    core = 0.26 + 0.1 * np.clip(spot.noise(2.5), -1.2, 1.2)
    spot.paint(inside(outline), 0.82)
    spot.paint(inside(outline + (1.6, 2.2)[grade]), core)


# --- brain MRI -------------------------------------------------------------------------------------------


def _brain(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = np.full(u.shape, 0.02, np.float32)
    width, height = rng.uniform(28.5, 30.5), rng.uniform(32.5, 34)
    head = ellipse(u, v, width, height)
    blend(picture, inside(head), 0.72)
    blend(picture, inside(head + rng.uniform(2, 2.8)), 0.05)
    folds = 1.1 * smooth_noise(rng, u.shape, (14, 14))
    blend(picture, inside(head + 4.2), 0.36 + 0.025 * smooth_noise(rng, u.shape, (18, 18)))
    blend(picture, inside(head + 8.2 + folds, 2), 0.5 + 0.02 * smooth_noise(rng, u.shape, (14, 14)))
    blend(picture, 0.8 * inside(np.abs(u) - 0.6) * inside(head + 4.5), 0.14)
    spread, length = rng.uniform(3.0, 4.0), rng.uniform(6, 8)
    for side in (-1, 1):
        for direction in (-1, 1):
            horn = ellipse(side * u - spread - 0.05 * np.abs(v), direction * v - length * 0.6, 1.7, length)
            blend(picture, inside(horn), 0.1)
    return picture


def _infarct(spot: Spot, grade: int) -> None:
    x, y = spot.grid
    outward = 1 if spot.rng.random() < 0.5 else -1
    reach = EXTENTS[grade]
    wedge = np.maximum(np.abs(x) - 0.62 * (y * outward + reach) - 0.6, np.abs(y) - reach)
    spot.paint((0.16 + 0.84 * STRENGTHS[grade]) * inside(wedge + 0.3 * spot.noise(3.0), 1.6), 0.08)


def _mri_tumour(spot: Spot, grade: int) -> None:
    outline = lobed(*spot.grid, RADII[grade] * 0.97, spot.rng, 0.18, (3, 5))
    spot.paint(inside(outline), 0.97)
    spot.paint(inside(outline + (2.0, 2.5)[grade]), 0.2 + 0.06 * np.clip(spot.noise(2.5), -1.5, 1.5))


def _plaque(spot: Spot, grade: int) -> None:
    x, y = spot.grid
    for centre in spot.centres(grade + 1):
        turn = spot.rng.uniform(0, np.pi)
        along = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
        across = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
        spot.paint(inside(ellipse(along, across, 3.0, 1.8)), 0.95)


def _oedema(spot: Spot, grade: int) -> None:
    spot.paint((0.14 + 0.76 * STRENGTHS[grade]) * spot.patch(EXTENTS[grade] + 0.6, 1.6), 0.86)


PAINTERS = {
    "chest x-ray": DomainPainter(
        _chest,
        {"nodule": _nodule, "consolidation": _consolidation, "cavity": _cavity, "fibrosis": _fibrosis},
        cell_offset=(17.5, 17.0),
        cell_half=(12.5, 9.0),
    ),
    "abdominal ct": DomainPainter(
        _abdomen,
        {
            "cyst": _ct_cyst,
            "calcification": _calcification,
            "haemorrhage": _ct_haemorrhage,
            "tumour": _ct_tumour,
        },
        cell_offset=(14.5, 16.5),
        cell_half=(12.5, 9.0),
    ),
    "brain mri": DomainPainter(
        _brain,
        {"infarct": _infarct, "tumour": _mri_tumour, "plaque": _plaque, "oedema": _oedema},
        cell_offset=(13.0, 17.0),
        cell_half=(12.0, 9.0),
    ),
}
