"""Brushes for phantom pictures: soft shapes, smooth noise and blending on float arrays.

Lengths are pixels. Pictures are float32 in 0..1, (S, S) grey or (S, S, 3) colour, S = 72, and are painted in place.
The brushes know neither domains nor findings.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SIZE = 72
AXIS = (
    (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE - 0.5
) * SIZE  # pixel centres from the picture's middle
Paint = float | tuple[float, float, float] | np.ndarray


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> np.ndarray:
    """Return weights (size, cells) that stretch `cells` values smoothly over `size` pixels."""
    position = np.linspace(0, cells - 1, size)
    lower = np.minimum(position.astype(int), cells - 2)
    fraction = position - lower
    fraction = fraction * fraction * (3 - 2 * fraction)
    weights = np.zeros((size, cells), np.float32)
    weights[np.arange(size), lower] = 1 - fraction
    weights[np.arange(size), lower + 1] += fraction
    return weights


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Draw smooth noise of roughly unit variance, shape (rows, columns), with `cells` features down and across."""
    coarse = rng.standard_normal(cells, dtype=np.float32)
    return _interpolation(shape[0], cells[0]) @ coarse @ _interpolation(shape[1], cells[1]).T


def inside(distance: np.ndarray, edge: float = 1.2) -> np.ndarray:
    """Return 1 where a signed distance is negative, 0 where it is positive, with a ramp `edge` wide between."""
    return np.clip(0.5 - distance / edge, 0, 1)


def ellipse(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    """Compute the approximate signed distance to an ellipse around the origin (negative inside)."""
    return (np.hypot(x / half_width, y / half_height) - 1) * min(half_width, half_height)


def lobed(
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    rng: np.random.Generator,
    depth: float,
    lobes: tuple[int, ...],
) -> np.ndarray:
    """Compute the approximate signed distance to a round outline whose radius waves `lobes` times by `depth`."""
    angle = np.arctan2(y, x)
    wave = sum(
        np.cos(n * angle + phase)
        for n, phase in zip(lobes, rng.uniform(0, 2 * np.pi, len(lobes)), strict=True)
    )
    return np.hypot(x, y) - radius * (1 + depth / len(lobes) * wave)


def lines(position: np.ndarray, spacing: float, width: float) -> np.ndarray:
    """Draw parallel soft lines across a coordinate, one every `spacing`."""
    return inside(np.abs((position / spacing) % 1 - 0.5) * spacing - width / 2, 1.0)


def dots(x: np.ndarray, y: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Draw soft round dots (rows of y, columns of x) from axes x, y and centres (n, 2); one matrix product."""
    across = np.exp(-(((x[None] - centres[:, :1]) / radii[:, None]) ** 2))
    down = np.exp(-(((y[None] - centres[:, 1:]) / radii[:, None]) ** 2))
    return np.clip(3 * (down.T @ across) - 0.6, 0, 1)


def blend(picture: np.ndarray, mask: np.ndarray, paint: Paint) -> None:
    """Cover a picture in place with a grey, a colour or another picture, as opaque as the mask says."""
    if picture.ndim == 3:
        mask = mask[..., None]
        paint = np.asarray(paint, np.float32)
        if paint.ndim == 2:
            paint = paint[..., None]
    picture += mask * (paint - picture)


@dataclass(frozen=True)
class Spot:
    """The spot of one finding: a writable view of its cell, and coordinates around the finding's centre.

    Attributes:
        view: the part of the picture that the finding may change, (h, w) or (h, w, 3).
        x, y: axes of the view in pixels from the finding's centre, (w,) and (h,).
        window: how far a mark may show, (h, w): 1 inside the cell, fading to 0 at its border.
        rng: the finding's own random numbers; they depend on the scene's seed and the cell alone.
    """

    view: np.ndarray
    x: np.ndarray
    y: np.ndarray
    window: np.ndarray
    rng: np.random.Generator

    @property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x as a row and y as a column, ready to broadcast to (h, w)."""
        return self.x[None, :], self.y[:, None]

    def noise(self, spacing: float) -> np.ndarray:
        """Draw smooth noise over the view, with a feature about every `spacing` pixels."""
        cells = tuple(max(2, round(float(np.ptp(values)) / spacing) + 1) for values in (self.y, self.x))
        return smooth_noise(self.rng, self.window.shape, cells)

    def paint(self, mask: np.ndarray, colour: Paint) -> None:
        """Cover the view where both the mask and the window allow it."""
        blend(self.view, mask * self.window, colour)

    def patch(self, half_height: float, raggedness: float = 1.0) -> np.ndarray:
        """Draw the mask of an irregular patch, wider than tall, with a soft border."""
        x, y = self.grid
        return inside(ellipse(x, y, 1.35 * half_height, half_height) + raggedness * self.noise(4.0), 3.0)

    def centres(self, count: int) -> np.ndarray:
        """Draw offsets (count, 2) of one, two or three well separated objects whose mean is the spot's centre."""
        turn = self.rng.uniform(0, 2 * np.pi)
        if count == 1:
            return np.zeros((1, 2), np.float32)
        if count == 2:
            tilt = 0.5 * np.sin(turn)
            return np.array([[-5.6, -5.6 * tilt], [5.6, 5.6 * tilt]], np.float32)
        flip = 1 if turn < np.pi else -1
        return np.array([[-7.2, 2.6 * flip], [7.2, 2.6 * flip], [0, -5.0 * flip]], np.float32)
