"""Parts that the image decoders share: one error, the limit on size, deep grey values to 8 bits, colours to sRGB.

A note is one sentence about what was done to a picture that its file does not ask for; functions append theirs to the
list that they are given.
"""

import io
import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageChops, ImageCms

MAX_PIXELS = 64_000_000  # of one frame
WINDOW_PERCENTILES = (0.5, 99.5)
FEW_GREYS = 16
INVISIBLE = 2  # levels of 255 by which a colour profile may differ from sRGB before it is applied
_AT_ONCE = 1 << 20  # values worked on together, so that little besides a large picture is as large as it


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
    values = np.asarray(values)
    levels, counts = count_levels(values if padding is None else values[~padding])
    check_finite(levels)
    if not levels.size:
        return np.zeros(values.shape, np.uint8)
    low, high = find_window(levels, counts, [] if notes is None else notes)
    with np.errstate(invalid="ignore"):  # padding may be NaN
        grey = stretch(values, low, high)
    if padding is not None:
        grey[padding] = 0
    return grey


def count_levels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values of a picture in order (N,), and how many pixels have each (N,)."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        parts = [np.unique(values[part], return_counts=True) for part in _bands(values, 1 << 24)]
        if len(parts) == 1:
            return parts[0]
        levels, counts = (np.concatenate(one) for one in zip(*parts, strict=True))
        levels, which = np.unique(levels, return_inverse=True)
        return levels, np.bincount(which, counts).astype(np.int64)
    lowest, highest = (int(end) for end in (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max))
    counts = np.zeros(highest - lowest + 1, np.int64)
    for part in _bands(values):
        counts += np.bincount(values[part].ravel().astype(np.int64) - lowest, minlength=counts.size)
    found = np.flatnonzero(counts)
    return (found + lowest).astype(values.dtype), counts[found]


def find_window(levels: np.ndarray, counts: np.ndarray, notes: list[str]) -> tuple[float, float]:
    """Return the ends of a picture's own window, as `window_grey` says, by its values and how many pixels have each."""
    outlier = next((end for end in (levels.min(), levels.max()) if _is_far(levels, counts, end)), None)
    if outlier is not None:
        notes.append(f"The value {outlier:g}, far from all others, was left out of the picture's own window.")
        levels, counts = levels[levels != outlier], counts[levels != outlier]
    low, high = find_percentiles(levels, counts)
    if high <= low:
        low, high = float(levels.min()), float(levels.max())
    notes.append(f"No window was given: shown from {low:g} to {high:g}, by its own percentiles.")
    return low, high


def find_percentiles(levels: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the `WINDOW_PERCENTILES` of values of which so many pixels have each, as NumPy does of all pixels."""
    last, found = int(counts.sum()) - 1, []
    for part in WINDOW_PERCENTILES:
        place = last * (part / 100)
        below = math.floor(place)
        between = _pick(levels, counts, [below, min(below + 1, last)])
        found.append(np.quantile(between, [place - below])[0])
    return found[0], found[1]


def _pick(levels: np.ndarray, counts: np.ndarray, places: np.ndarray | list[int]) -> np.ndarray:
    """Return the values at places of the row that all pixels' values make in order."""
    order = np.argsort(levels)
    return levels[order][np.searchsorted(counts[order].cumsum(), places, side="right")]


def _is_far(levels: np.ndarray, counts: np.ndarray, end: np.number) -> bool:
    """Return True if the lowest or highest value is one that many have, far from all others."""
    rest, number = counts[levels != end], int(counts.sum())
    levels, size = levels[levels != end], int(rest.sum())
    if not 0 < size < (1 - WINDOW_PERCENTILES[0] / 100) * number:
        return False  # there is nothing else, or the percentiles leave it out anyway
    # Greys that next to no pixel has do not count.
    sample = _pick(levels, rest, np.arange(0, size, size // 10_000 + 1))
    low, high = find_percentiles(levels, rest)
    is_apart = max(low - float(end), float(end) - high) > high - low
    return bool(is_apart and np.unique(sample).size > FEW_GREYS)


def _bands(values: np.ndarray, most: int = _AT_ONCE) -> Iterator[slice]:
    """Yield bands of rows, which hold at most so many values, if a row does."""
    rows = max(1, most * len(values) // max(values.size, 1))
    return (slice(top, top + rows) for top in range(0, len(values), rows))


def in_bands(show: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Apply what looks at single pixels to a picture (H, W, ...), some rows at a time."""
    return np.concatenate([show(values[part]) for part in _bands(values)])


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 (uint8), clipping outside; everything to 0 when high equals low."""
    grey = np.zeros(values.shape, np.uint8)
    if high == low:
        return grey
    for part in _bands(values):
        exact = np.asarray(values[part], np.float64)
        grey[part] = np.clip((exact - low) / (high - low), 0, 1) * 255 + 0.5
    return grey


def grey_range(grey: np.ndarray, pixels: np.ndarray | None = None) -> tuple[int, int, int]:
    """Return lowest, highest and number of greys, half a percent of the pixels left out at either end.

    Args:
        grey: uint8, of one pixel each, or of so many as `pixels` says.
        pixels: whole numbers of the same shape.
    """
    counts = np.bincount(grey.ravel(), pixels, minlength=256)
    share = counts.cumsum() / counts.sum()
    low, high = (int(np.searchsorted(share, part / 100)) for part in WINDOW_PERCENTILES)
    return low, high, int(np.count_nonzero(counts[low : high + 1]))


def note_few_greys(image: Image.Image, notes: list[str]) -> None:
    """Say of a picture that it holds next to nothing, if that is so."""
    low, high, number = grey_range(*count_levels(np.asarray(image.convert("L"))))
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
    if image.mode != "CMYK" and not _differs(image, converted):
        return image
    notes.append(f"The picture's colours were converted from the profile {name!r} to sRGB.")
    return converted


def _differs(image: Image.Image, converted: Image.Image) -> bool:
    """Return True if colours of two pictures differ visibly."""
    return any(
        high > INVISIBLE
        for box in boxes(*image.size)
        for _, high in ImageChops.difference(image.crop(box).convert("RGB"), converted.crop(box)).getextrema()
    )


def boxes(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield parts of a picture that are worked on together: left, top, right, bottom."""
    columns = min(width, _AT_ONCE)
    rows = _AT_ONCE // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def _transform(image: Image.Image, profile: object) -> Image.Image:
    return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
