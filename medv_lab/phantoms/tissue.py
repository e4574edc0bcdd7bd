"""Histology (haematoxylin and eosin) and gross pathology: backgrounds and findings, painted in colour.

Conventions are those of `radiology`: organ coordinates u, v; a finding gets its spot and the index
of its grade.
"""

import numpy as np

from medv_lab.phantoms.painting import AXIS, Spot, blend, dots, inside, lines, lobed, smooth_noise
from medv_lab.phantoms.radiology import EXTENTS, RADII, STRENGTHS, DomainPainter

NUCLEUS = (0.36, 0.2, 0.52)
NUCLEI = 90
INFLAMMATORY_CELLS = (16, 36, 75)  # mild, moderate, severe


def _wash(shape: tuple[int, int], colour: tuple[float, float, float]) -> np.ndarray:
    return np.tile(np.asarray(colour, np.float32), (*shape, 1))


# --- histology -------------------------------------------------------------------------------------------


def _stroma(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = _wash(u.shape, (0.88, 0.62 + rng.uniform(-0.04, 0.04), 0.77))
    fibres = np.sin(0.55 * (u * rng.uniform(-0.7, 0.7) + v) + 1.6 * smooth_noise(rng, u.shape, (6, 6)))
    picture += fibres[..., None] * np.float32([0.03, 0.05, 0.03])
    picture += smooth_noise(rng, u.shape, (10, 10))[..., None] * np.float32([0.02, 0.035, 0.02])
    centres = rng.uniform(-36, 36, (NUCLEI, 2)).astype(np.float32)
    blend(
        picture,
        0.8 * dots(AXIS, AXIS, centres, rng.uniform(0.8, 1.25, NUCLEI).astype(np.float32)),
        (0.5, 0.32, 0.64),
    )
    edge = np.maximum(np.abs(u) - 34, np.abs(v) - 34) + 1.0 * smooth_noise(rng, u.shape, (9, 9))
    blend(picture, 1 - inside(edge, 1.5), (0.95, 0.94, 0.95))
    return picture


def _gland(spot: Spot, grade: int) -> None:
    x, y = spot.grid
    for centre in spot.centres(grade + 1):
        distance = np.hypot(x - centre[0], y - centre[1])
        spot.paint(inside(distance - 4.1), NUCLEUS)
        spot.paint(inside(distance - 2.0), (0.98, 0.95, 0.97))


def _vessel(spot: Spot, grade: int) -> None:
    outline = lobed(*spot.grid, RADII[grade], spot.rng, 0.08, (2, 3))
    spot.paint(inside(outline), (0.62, 0.28, 0.45))
    spot.paint(inside(outline + (1.5, 1.9)[grade]), (0.86, 0.12, 0.16))


def _necrosis(spot: Spot, grade: int) -> None:
    debris = np.clip(spot.noise(1.6), -1.5, 1.5)[..., None] * np.float32([0.05, 0.05, 0.04])
    pale = np.float32([0.80, 0.74, 0.56]) + debris
    spot.paint((0.2 + 0.8 * STRENGTHS[grade]) * spot.patch(EXTENTS[grade] + 1.6, 1.0), pale)


def _inflammation(spot: Spot, grade: int) -> None:
    count = INFLAMMATORY_CELLS[grade]
    reach = np.sqrt(spot.rng.uniform(0, 1, INFLAMMATORY_CELLS[-1]))[:count] * (EXTENTS[grade] + 1.2)
    angle = spot.rng.uniform(0, 2 * np.pi, INFLAMMATORY_CELLS[-1])[:count]
    centres = np.stack([1.3 * reach * np.cos(angle), reach * np.sin(angle)], axis=1).astype(np.float32)
    spot.paint(dots(spot.x, spot.y, centres, np.full(count, 1.0, np.float32)), (0.2, 0.1, 0.45))


# --- gross pathology -------------------------------------------------------------------------------------


def _specimen(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cloth = np.float32([0.36, 0.58, 0.58]) if rng.random() < 0.6 else np.float32([0.55, 0.6, 0.64])
    picture = _wash(u.shape, cloth + rng.uniform(-0.04, 0.04))
    picture += (0.03 * (lines(u + v, 3.0, 1.2) + lines(u - v, 3.0, 1.2)))[..., None]
    width, height = rng.uniform(30, 32), rng.uniform(28, 30)
    outline = (((np.abs(u) / width) ** 3 + (np.abs(v) / height) ** 3) ** (1 / 3) - 1) * height
    outline = outline + 0.8 * smooth_noise(rng, u.shape, (8, 8))
    blend(picture, 0.5 * inside(outline - 2.0, 4), cloth * 0.35)
    flesh = _wash(u.shape, (0.60, 0.29 + rng.uniform(-0.03, 0.03), 0.22))
    flesh += smooth_noise(rng, u.shape, (9, 9))[..., None] * np.float32([0.03, 0.025, 0.02])
    flesh += smooth_noise(rng, u.shape, (24, 24))[..., None] * np.float32([0.02, 0.015, 0.012])
    blend(picture, inside(outline, 1.5), flesh)
    blend(picture, 0.35 * inside(np.abs(outline + 1.2) - 0.8), (0.8, 0.55, 0.45))
    return picture


def _gross_tumour(spot: Spot, grade: int) -> None:
    outline = lobed(*spot.grid, RADII[grade], spot.rng, 0.2, (3, 5))
    pale = np.float32([0.92, 0.86, 0.74]) + (0.05 * np.clip(spot.noise(2.5), -1.2, 1.2))[..., None]
    spot.paint(inside(outline), pale)


def _gross_haemorrhage(spot: Spot, grade: int) -> None:
    spot.paint((0.2 + 0.75 * STRENGTHS[grade]) * spot.patch(EXTENTS[grade] + 1.0, 1.4), (0.16, 0.01, 0.04))


def _gross_cyst(spot: Spot, grade: int) -> None:
    x, y = spot.grid
    for centre in spot.centres(grade + 1):
        distance = np.hypot(x - centre[0], y - centre[1])
        spot.paint(inside(distance - 3.7), (0.3, 0.36, 0.46))
        spot.paint(inside(distance - 2.7), (0.5, 0.66, 0.78))
        spot.paint(inside(np.hypot(x - centre[0] + 1.0, y - centre[1] + 1.0) - 0.9), (1.0, 1.0, 1.0))


def _ulcer(spot: Spot, grade: int) -> None:
    outline = lobed(*spot.grid, RADII[grade], spot.rng, 0.12, (3, 4))
    spot.paint(inside(outline), (0.93, 0.5, 0.42))
    spot.paint(inside(outline + (1.5, 2.0)[grade]), (0.3, 0.06, 0.05))
    spot.paint(inside(outline + (2.8, 4.0)[grade], 2.0), (0.8, 0.74, 0.3))


PAINTERS = {
    "histology": DomainPainter(
        _stroma,
        {"gland": _gland, "vessel": _vessel, "necrosis": _necrosis, "inflammation": _inflammation},
        cell_offset=(17.0, 21.0),
        cell_half=(14.0, 10.5),
    ),
    "gross pathology": DomainPainter(
        _specimen,
        {"tumour": _gross_tumour, "haemorrhage": _gross_haemorrhage, "cyst": _gross_cyst, "ulcer": _ulcer},
        cell_offset=(15.5, 17.5),
        cell_half=(12.5, 9.2),
    ),
}
