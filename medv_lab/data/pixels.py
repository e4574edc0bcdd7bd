"""Parts that the image decoders share: one error, the limit on size, deep grey values to 8 bits, colours to sRGB.

A note is one sentence about what was done to a picture that its file does not ask for; functions append theirs to the
list that they are given.
"""

import io

import numpy as np
from PIL import Image, ImageCms

MAX_PIXELS = 64_000_000  # of one frame
WINDOW_PERCENTILES = (0.5, 99.5)
FEW_GREYS = 16
INVISIBLE = 2  # levels of 255 by which a colour profile may differ from sRGB before it is applied
_ROWS_AT_ONCE = 256  # of a picture that is stretched, so that no second copy of it is ever whole


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


def check_finite(values: np.ndarray) -> None:
    """Refuse values that are no numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("holds NaN or infinite values. Replace them with numbers first.")


def window_grey(
    values: np.ndarray, notes: list[str] | None = None, padding: np.ndarray | None = None
) -> np.ndarray:
    """Convert deep grey values (H, W) to uint8 by the picture's own window.

    The window runs from the 0.5th to the 99.5th percentile; where these coincide (almost all pixels equal) it
    runs from minimum to maximum, and a picture of one single value becomes black. A lowest or highest value that many
    pixels have, further from all others than they lie apart, is left out of the percentiles: padding that the file
    does not declare, or writing on the picture.

    Args:
        values: real numbers (H, W).
        notes: receives the window, and a value that was left out of it.
        padding: bool (H, W), pixels that are no part of the picture: outside the percentiles, and black.

    Raises:
        ImageError: when a value is NaN or infinite.
    """
    notes = [] if notes is None else notes
    inside = np.asarray(values)[... if padding is None else ~padding].ravel()
    check_finite(inside)
    if not inside.size:
        return np.zeros(values.shape, np.uint8)
    outlier = _far_value(inside)
    if outlier is not None:
        notes.append(f"The value {outlier:g}, far from all others, was left out of the picture's own window.")
        inside = inside[inside != outlier]
    low, high = np.percentile(inside, WINDOW_PERCENTILES)
    if high <= low:
        low, high = float(inside.min()), float(inside.max())
    notes.append(f"No window was given: shown from {low:g} to {high:g}, by its own percentiles.")
    if padding is not None:
        values = np.where(padding, low, values)
    return stretch(values, low, high)


def _far_value(values: np.ndarray) -> float | None:
    """Return the lowest or highest value (N,) if it is far from all others, else None."""
    return next((float(end) for end in (values.min(), values.max()) if _is_far(values, end)), None)


def _is_far(values: np.ndarray, end: np.number) -> bool:
    rest = values[values != end]
    if not 0 < rest.size < (1 - WINDOW_PERCENTILES[0] / 100) * values.size:
        return False  # there is nothing else, or the percentiles leave it out anyway
    has_greys = np.unique(rest[:: rest.size // 10_000 + 1]).size > FEW_GREYS
    low, high = np.percentile(rest, WINDOW_PERCENTILES, overwrite_input=True)  # another copy takes 256 MB
    return bool(has_greys and max(low - float(end), float(end) - high) > high - low)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 (uint8), clipping outside; everything to 0 when high equals low."""
    grey = np.zeros(values.shape, np.uint8)
    if high == low:
        return grey
    for start in range(0, len(values), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        exact = np.asarray(values[part], np.float64)
        grey[part] = np.clip((exact - low) / (high - low), 0, 1) * 255 + 0.5
    return grey


def grey_range(grey: np.ndarray) -> tuple[int, int, int]:
    """Return lowest, highest and number of greys of a uint8 picture, half a percent left out at either end."""
    counts = np.bincount(grey.ravel(), minlength=256)
    share = counts.cumsum() / counts.sum()
    low, high = (int(np.searchsorted(share, part / 100)) for part in WINDOW_PERCENTILES)
    return low, high, int(np.count_nonzero(counts[low : high + 1]))


def note_few_greys(image: Image.Image, notes: list[str]) -> None:
    """Say of a picture that it holds next to nothing, if that is so."""
    low, high, number = grey_range(np.asarray(image.convert("L")))
    if number <= FEW_GREYS:
        notes.append(
            f"Nearly all of the picture is one grey ({low} of 255): little or nothing can be seen in it."
            if number == 1
            else f"Nearly all of the picture has only {number} greys, from {low} to {high} of 255."
        )


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert a picture's colours to sRGB: by its ICC profile, LAB always; others without one stay as they are.

    Args:
        image: opaque, of any 8-bit mode.
        profile: an ICC profile; one that is broken, or of other colours than the picture's, is noted and not used.
        notes: receives what was done.

    Returns:
        A picture in mode RGB where a profile was used, else the one given.
    """
    if image.mode == "LAB":
        notes.append("The picture's CIELAB colours were converted to sRGB.")
        return _transform(image, ImageCms.createProfile("LAB"))
    if not profile:
        return image
    try:
        known = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = known.profile.xcolor_space.strip()
        if space == "RGB" and image.mode != "CMYK":
            image = image.convert("RGB")
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) != image.mode:
            notes.append(
                f"The picture's colour profile is of {space} colours, not its own, and was not used."
            )
            return image
        converted = _transform(image, known)
        name = ImageCms.getProfileDescription(known).strip()
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        notes.append(
            f"The picture's colour profile cannot be used ({error}): its colours were taken for sRGB."
        )
        return image
    if image.mode != "CMYK":
        given = np.asarray(image.convert("RGB")).astype(np.int16)
        if np.abs(given - np.asarray(converted)).max() <= INVISIBLE:
            return image
    notes.append(f"The picture's colours were converted from the profile {name!r} to sRGB.")
    return converted


def _transform(image: Image.Image, profile: object) -> Image.Image:
    return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
