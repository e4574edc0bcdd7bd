"""Parts that the image decoders share: one error, the limit on size, and deep grey values to 8 bits."""

import numpy as np

MAX_PIXELS = 64_000_000  # of one frame
WINDOW_PERCENTILES = (0.5, 99.5)


class ImageError(ValueError):
    """A picture cannot be used. Says what was given, what is allowed and what to do."""


def check_size(width: int, height: int) -> None:
    """Refuse pictures without pixels and over `MAX_PIXELS`, before anything is decoded."""
    if min(width, height) < 1:
        raise ImageError(f"has no pixels ({width} x {height}). Give a picture of at least 1 x 1.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"has {width} x {height} = {width * height} pixels; {MAX_PIXELS} are allowed. Make it smaller."
        )


def check_frame(frame: int, frames: int) -> None:
    """Refuse a frame that the picture does not have."""
    if not 0 <= frame < frames:
        raise ImageError(
            f"has {frames} frame{'s' * (frames != 1)}, so frame {frame} does not exist: use 0 to {frames - 1}."
        )


def window_grey(values: np.ndarray) -> np.ndarray:
    """Convert deep grey values (H, W) to uint8 by the picture's own window.

    The window runs from the 0.5th to the 99.5th percentile; where these coincide (almost all pixels equal) it
    runs from minimum to maximum, and a picture of one single value becomes black.

    Raises:
        ImageError: when a value is NaN or infinite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ImageError("holds NaN or infinite values. Replace them with numbers first.")
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    if high <= low:
        low, high = values.min(), values.max()
    return stretch(values, low, high)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 (uint8), clipping outside; everything to 0 when high equals low."""
    if high == low:
        return np.zeros(values.shape, np.uint8)
    return (np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)
