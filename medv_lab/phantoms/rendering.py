"""Paint a scene: facts and a seed in, pixels out. Pure NumPy, about a millisecond for a 72-pixel picture.

The picture is built in three layers. The background (organ, pose, texture) and the camera (noise, contrast,
vignette, burned-in marker) draw their random numbers from the seed and the domain alone; each finding draws
its own from the seed and its cell. Two scenes that share domain and seed therefore differ only where their
findings differ.

Findings lie in cells: 2 sides of the picture x 3 thirds of the organ.
"""

from collections.abc import Collection

import numpy as np

from medv_lab.phantoms import radiology, tissue
from medv_lab.phantoms.painting import AXIS, SIZE, Spot, inside, smooth_noise
from medv_lab.phantoms.scenes import CELLS, DOMAINS, GRADES, KINDS, SIDES, ZONES, Scene

PAINTERS = radiology.PAINTERS | tissue.PAINTERS  # domain -> DomainPainter
BACKGROUND_STREAM, CAMERA_STREAM, FIRST_FINDING_STREAM = range(3)

MARKER_PROBABILITY = 0.25
GLYPHS = {
    "L": ("100", "100", "100", "100", "111"),
    "R": ("110", "101", "110", "101", "101"),
    "bar": ("11111111",),
}


def render(scene: Scene) -> np.ndarray:
    """Paint a scene; the same scene always gives the same pixels.

    Args:
        scene: domain, findings (each in a cell of its own) and seed, 0 or more.

    Returns:
        uint8 array (72, 72, 3), RGB; radiology is grey (three equal channels).

    Raises:
        ValueError: for an unknown domain, kind, side, zone or grade, or two findings in one cell.
    """
    _check(scene)
    domain = DOMAINS.index(scene.domain)
    painter = PAINTERS[scene.domain]
    rng = np.random.default_rng([scene.seed, domain, BACKGROUND_STREAM])
    angle = np.deg2rad(rng.uniform(-4, 4))
    scale = rng.uniform(0.95, 1.04)
    shift = rng.uniform(-2.0, 2.0, 2)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y = AXIS[None, :] - np.float32(shift[0]), AXIS[:, None] - np.float32(shift[1])
    inverse = np.linalg.inv(rotation).astype(np.float32)
    u, v = inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y
    picture = painter.background(u, v, rng)
    for finding in scene.findings:
        side, zone = SIDES.index(finding.side), ZONES.index(finding.zone)
        home = (
            rotation @ ((2 * side - 1) * painter.cell_offset[0], (zone - 1) * painter.cell_offset[1]) + shift
        )
        stream = FIRST_FINDING_STREAM + CELLS.index((finding.side, finding.zone))
        spot = _spot(picture, home, painter.cell_half, np.random.default_rng([scene.seed, domain, stream]))
        painter.findings[finding.kind](spot, GRADES[KINDS[scene.domain][finding.kind]].index(finding.grade))
    return _photograph(picture, np.random.default_rng([scene.seed, domain, CAMERA_STREAM]))


def _check(scene: Scene) -> None:
    """Refuse what cannot be painted, naming what can."""

    def require(field: str, value: str, allowed: Collection[str]) -> None:
        if value not in allowed:
            raise ValueError(f"unknown {field} {value!r} of a phantom; allowed are {', '.join(allowed)}")

    require("domain", scene.domain, DOMAINS)
    kinds = KINDS[scene.domain]
    for finding in scene.findings:
        require("kind", finding.kind, kinds)
        require("side", finding.side, SIDES)
        require("zone", finding.zone, ZONES)
        require("grade", finding.grade, GRADES[kinds[finding.kind]])
    if len({(finding.side, finding.zone) for finding in scene.findings}) < len(scene.findings):
        raise ValueError(f"two findings share a cell in {scene.findings}; give each its own (side, zone)")


def _spot(picture: np.ndarray, home: np.ndarray, half: tuple[float, float], rng: np.random.Generator) -> Spot:
    """Return the view of one cell around `home`, with the finding's centre jittered a little inside it."""
    columns, rows = (slice(*np.searchsorted(AXIS, (home[i] - half[i], home[i] + half[i]))) for i in range(2))
    centre = (home + rng.uniform(-1.0, 1.0, 2)).astype(np.float32)
    fade = [
        inside(np.abs(AXIS[part] - home[i]) - half[i] + 0.8, 1.6) for i, part in enumerate((columns, rows))
    ]
    return Spot(
        view=picture[rows, columns],
        x=AXIS[columns] - centre[0],
        y=AXIS[rows] - centre[1],
        window=(fade[1][:, None] * fade[0][None, :]).astype(np.float32),
        rng=rng,
    )


def _photograph(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a camera or a scanner adds: contrast, brightness, gamma, tint, vignette, grain, a marker."""
    contrast, brightness, gamma = rng.uniform(0.85, 1.08), rng.uniform(-0.03, 0.05), rng.uniform(0.88, 1.14)
    vignette, grain = rng.uniform(0, 0.22), rng.uniform(0.008, 0.032)
    tint = rng.uniform(0.96, 1.03, 3).astype(np.float32)
    x = AXIS / (SIZE / 2)
    shade = (1 - vignette * 0.5 * (x[None, :] ** 2 + x[:, None] ** 2)).astype(np.float32)
    shade += 0.03 * smooth_noise(rng, (SIZE, SIZE), (4, 4))
    noise = np.float32(grain) * rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    if picture.ndim == 3:
        picture, shade, noise = picture * tint, shade[..., None], noise[..., None]
    picture = np.clip(picture, 0, 1) ** np.float32(gamma)
    picture = ((picture - 0.5) * np.float32(contrast) + np.float32(0.5 + brightness)) * shade + noise
    pixels = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    _stamp_marker(pixels, rng)
    return pixels


def _stamp_marker(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Sometimes burn a letter or a scale bar into a corner; it says nothing about the findings."""
    is_stamped = rng.random() < MARKER_PROBABILITY
    glyph = GLYPHS[("L", "R", "bar")[rng.integers(3)]]
    at_bottom, at_right = rng.integers(2, size=2)
    if not is_stamped:
        return
    bits = np.array([list(map(int, row)) for row in glyph], bool)
    top = SIZE - 2 - bits.shape[0] if at_bottom else 2
    left = SIZE - 2 - bits.shape[1] if at_right else 2
    corner = pixels[top : top + bits.shape[0], left : left + bits.shape[1]]
    corner[bits] = 20 if corner.mean() > 150 else 235
