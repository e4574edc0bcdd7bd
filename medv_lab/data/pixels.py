"""Parts that the image decoders share: one error, the limit on size, and deep grey values to 8 bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

MAX_PIXELS = 64_000_000
WINDOW_PERCENTILES = (0.5, 99.5)


class ImageError(ValueError):
    """A picture cannot be used. Says what was given, what is allowed and what to do."""


@contextmanager
def reporting(errors: tuple[type[Exception], ...], name: str, advice: str) -> Iterator[None]:
    """Turn a decoder's own exceptions into an `ImageError` that names the picture and gives advice."""
    try:
        yield
    except ImageError:
        raise
    except errors as error:
        raise ImageError(f"{name} cannot be decoded ({type(error).__name__}: {error}). {advice}") from error


def check_pixels(name: str, width: int, height: int, frames: int, max_pixels: int) -> None:
    """Refuse pictures without pixels and pictures over the limit, before anything is decoded.

    Raises:
        ImageError: when a side is below 1 or width x height x frames exceeds `max_pixels`.
    """
    if min(width, height, frames) < 1:
        raise ImageError(
            f"{name} has no pixels ({width} x {height}, {frames} frames). Give a picture of at least 1 x 1."
        )
    if width * height * frames > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} x {frames} = {width * height * frames} pixels; {max_pixels} are "
            "allowed. Make it smaller, or pass a larger max_pixels if you trust the file."
        )


def check_frame(name: str, frame: int, frames: int) -> None:
    """Refuse a frame that the picture does not have.

    Raises:
        ImageError: says how many frames there are.
    """
    if not 0 <= frame < frames:
        raise ImageError(
            f"{name} has {frames} frame{'s' * (frames != 1)}, so frame {frame} does not exist: "
            f"use 0 to {frames - 1}."
        )


def window_grey(name: str, values: np.ndarray) -> np.ndarray:
    """Convert deep grey values (H, W) to uint8 by the picture's own window.

    The window runs from the 0.5th to the 99.5th percentile; where these coincide (almost all pixels equal) it
    runs from minimum to maximum, and a picture of one single value becomes black.

    Raises:
        ImageError: when a value is NaN or infinite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ImageError(f"{name} holds NaN or infinite values. Replace them with numbers first.")
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    if high <= low:
        low, high = values.min(), values.max()
    return stretch(values, low, high)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 (uint8), clipping outside; everything to 0 when high equals low."""
    if high == low:
        return np.zeros(values.shape, np.uint8)
    return (np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)
