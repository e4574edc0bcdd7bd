"""From stored DICOM values to 8 bits: an exact reading of PS3.3 C.7.5.1.1.2, C.7.6.3.1.5, C.7.9.2, C.11.1 and C.11.2.

Grey, in this order: the modality lookup table or slope and intercept; padding, which is black and in no window; then
the first rule that leaves a picture of the lookup tables of the values of interest, the windows, the full range
(unsigned pictures of 8 bits or fewer without a modality transform) and the percentile window of
`pixels.window_grey`; MONOCHROME1 is inverted at the end. An element that is empty or cannot be used is as if it were
absent, and a note says so.

pydicom has such functions too. They index 8-bit tables in 8 bits, read big-endian palettes in the wrong order, refuse
empty elements and know nothing of padding. highdicom's give the same greys as these where both show a picture; they
know no padding and no window of the picture's own, and refuse tables of 8 bits in words of 16.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from pydicom.dataset import Dataset

from medv_lab.data.pixels import (
    ImageError,
    check_finite,
    count_levels,
    find_percentiles,
    find_window,
    grey_range,
    in_bands,
    stretch,
)

Rule = Callable[[np.ndarray], np.ndarray]  # what looks at single pixels

COLOURS = ("Red", "Green", "Blue")
PADDING = {  # a padding value, and the other end of its range
    "PixelPaddingValue": "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue": "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue": "DoubleFloatPixelPaddingRangeLimit",
}
GREY_ELEMENTS = (
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(name for pair in PADDING.items() for name in pair),
)
MOST_ENTRIES = 1 << 16
MOSTLY_CLIPPED = 0.95  # of the pixels: then little of the picture is left
_UNREADABLE = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class LookupTable:
    """A table of DICOM.

    Attributes:
        first: the value that the first entry stands for; lower ones have it too, and higher than the last the last.
        entries: whole numbers (N,).
        bits: of an entry, so that entries lie in 0..2**bits - 1.
    """

    first: int
    entries: np.ndarray
    bits: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Return the entries of values of any shape, which are rounded to whole ones."""
        index = np.rint(values).astype(np.int64) - self.first
        return self.entries[np.clip(index, 0, len(self.entries) - 1)]


def show_grey(elements: Dataset, stored: np.ndarray, notes: list[str]) -> np.ndarray:
    """Convert stored grey values (H, W) to uint8 (H, W) as a viewer shows them.

    Args:
        elements: those of `GREY_ELEMENTS` that are in force.
        stored: whole or real numbers.
        notes: receives what could not be used, and what was used instead.

    Raises:
        ImageError: when a value is NaN or infinite.
    """
    # What is seen of a pixel depends on its value and on how many pixels have which, not on where they are.
    levels, counts = count_levels(stored)
    is_padding = _find_padding(elements, levels, notes)
    to_modality = _find_modality(elements, levels, notes)
    is_body = ~is_padding(levels)
    body, counts = to_modality(levels)[is_body], counts[is_body]
    check_finite(body)
    lowest = body.min()

    def to_values(part: np.ndarray) -> np.ndarray:
        return np.where(is_padding(part), lowest, to_modality(part))  # padding may be NaN

    low, high = find_percentiles(body, counts)
    for name, rule in _list_rules(elements, levels, to_values(levels), notes):
        grey = rule(body)
        if low == high or grey_range(grey, counts)[2] > 1:
            clipped = counts[np.isin(grey, (0, 255))].sum() / counts.sum()
            if clipped > MOSTLY_CLIPPED and stored.dtype.itemsize > 1:
                notes.append(f"{name} makes {100 * clipped:.1f} % of the pixels black or white.")
            break
        notes.append(f"{name} makes one grey of values from {low:g} to {high:g}: not used.")
    else:
        low, high = find_window(body, counts, notes)
        rule = partial(stretch, low=low, high=high)
    is_inverted = elements.get("PhotometricInterpretation") == "MONOCHROME1"

    def show(part: np.ndarray) -> np.ndarray:
        grey = rule(to_values(part))
        grey = 255 - grey if is_inverted else grey
        grey[is_padding(part)] = 0
        return grey

    return in_bands(show, stored)


def show_palette(dataset: Dataset, stored: np.ndarray, notes: list[str]) -> np.ndarray:
    """Convert indices of a palette (H, W) to uint8 RGB (H, W, 3).

    Raises:
        ImageError: for a palette that is absent, incomplete or damaged.
    """
    try:
        tables = [_read_palette(dataset, colour, stored) for colour in COLOURS]
    except _UNREADABLE as error:
        raise ImageError(
            f"has a palette that cannot be read ({error}). Export the picture again, as RGB if possible."
        ) from error
    bits = tables[0].bits
    if bits > 8 and max(table.entries.max() for table in tables) < 256:
        notes.append(f"The palette's entries of {bits} bits hold numbers of 8 bits, and were read as such.")
        bits = 8

    def show(part: np.ndarray) -> np.ndarray:
        return np.stack([stretch(table.look_up(part), 0, 2**bits - 1) for table in tables], axis=-1)

    return in_bands(show, stored)


def _find_padding(elements: Dataset, levels: np.ndarray, notes: list[str]) -> Rule:
    """Return what says of stored values whether they are padding: the padding value, or its range with both ends."""
    for name, limit in PADDING.items():
        ends = _read_numbers(elements, name, notes, allow_nan=True)[:1]
        if ends:
            ends += _read_numbers(elements, limit, notes)[:1]
            if levels.dtype.kind in "iu":  # written as US for a signed picture, or as SS for an unsigned one
                info = np.iinfo(levels.dtype)
                ends = [(int(end) - info.min) % (info.max - info.min + 1) + info.min for end in ends]
            rule = np.isnan if math.isnan(ends[0]) else partial(_is_between, low=min(ends), high=max(ends))
            if not rule(levels).all():
                return rule
            notes.append(f"All pixels are padding by {name}: it was not used.")
    return lambda part: np.zeros(part.shape, bool)


def _is_between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values <= high)


def _find_modality(elements: Dataset, levels: np.ndarray, notes: list[str]) -> Rule:
    """Return the modality table, or slope and intercept, where absent and unusable ones are 1 and 0 (C.11.1)."""
    for table in _read_tables(elements, "ModalityLUTSequence", levels, notes):
        return table.look_up
    slope = next(iter(_read_numbers(elements, "RescaleSlope", notes)), 1.0)
    intercept = next(iter(_read_numbers(elements, "RescaleIntercept", notes)), 0.0)
    if slope == 0:
        notes.append("RescaleSlope is 0: read as 1.")
        slope = 1.0
    return lambda part: part if (slope, intercept) == (1, 0) else part * slope + intercept


def _list_rules(
    elements: Dataset, levels: np.ndarray, values: np.ndarray, notes: list[str]
) -> Iterator[tuple[str, Rule]]:
    """Yield the ways that the file has of making values grey, with their names, in the order in which they count.

    Args:
        elements: see `show_grey`.
        levels: the different stored values (N,).
        values: the same after the modality transform.
        notes: see `show_grey`.
    """
    for table in _read_tables(elements, "VOILUTSequence", values, notes):
        yield "The VOI LUT", lambda given, own=table: stretch(own.look_up(given), 0, 2**own.bits - 1)
    centers, widths = (_read_numbers(elements, name, notes) for name in ("WindowCenter", "WindowWidth"))
    if len(centers) != len(widths):
        notes.append(f"{len(centers)} WindowCenter stand beside {len(widths)} WindowWidth.")
    function = str(elements.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") and centers:
        notes.append(f"VOILUTFunction is {function!r}: read as LINEAR.")
    for center, width in zip(centers, widths, strict=False):
        name = f"The window with center {center:g} and width {width:g}"
        if width > 0:
            yield name, make_window(center, width, function, notes)
        else:
            notes.append(f"{name} was not used: a width is above 0.")
    bits = int(elements.get("BitsStored") or 64)
    if bits <= 8 and levels.dtype.kind == "u" and np.array_equal(values, levels):
        yield "The full range", lambda given: stretch(given, 0, 2**bits - 1)


def make_window(center: float, width: float, function: str, notes: list[str]) -> Rule:
    """Return a window as a function from values to uint8 (C.11.2.1.2 and C.11.2.1.3).

    A LINEAR window narrower than 1, for which the standard has no meaning, is read as LINEAR_EXACT.
    """
    if function == "SIGMOID":

        def curve(values: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):  # far outside it saturates
                return stretch(1 / (1 + np.exp(-4 * (values - center) / width)), 0, 1)

        return curve
    if function != "LINEAR_EXACT":
        if width < 1:
            notes.append(f"WindowWidth is {width:g}, below 1: read as LINEAR_EXACT.")
        else:
            center, width = center - 0.5, width - 1
    low, high = center - width / 2, center + width / 2
    if low == high:  # a width of 1 is a threshold
        return lambda values: np.where(values > low, np.uint8(255), np.uint8(0))
    return lambda values: stretch(values, low, high)


def _read_numbers(elements: Dataset, keyword: str, notes: list[str], allow_nan: bool = False) -> list[float]:
    """Return the numbers of an element, none where it is absent; what is there and is no finite number is noted."""
    if keyword not in elements:
        return []
    try:
        value = elements[keyword].value
        parts = [value] if isinstance(value, str | int | float) or value is None else list(value)
        found = [float(part) for part in parts if part not in (None, "")]
    except _UNREADABLE:
        notes.append(f"{keyword} holds no number: not used.")
        return []
    if not found:
        notes.append(f"{keyword} is empty: not used.")
    finite = [one for one in found if math.isfinite(one) or allow_nan]
    if len(finite) < len(found):
        notes.append(f"{keyword} holds a number that is not finite: not used.")
    return finite


def _read_tables(
    elements: Dataset, keyword: str, values: np.ndarray, notes: list[str]
) -> Iterator[LookupTable]:
    """Yield the usable tables of a sequence, for values that they are to be applied to."""
    items = elements.get(keyword) if keyword in elements else ()
    if keyword in elements and not items:
        notes.append(f"{keyword} is empty: not used.")
    for item in items or ():
        try:
            is_little = elements.original_encoding[1]
            table = read_table(item["LUTDescriptor"].value, item["LUTData"].value, is_little, values)
        except _UNREADABLE as error:
            notes.append(f"A table of {keyword} cannot be read ({error}): not used.")
            continue
        largest = int(table.entries.max()).bit_length()
        if not largest <= table.bits <= 16:
            notes.append(f"A table of {keyword} says {table.bits} bits, and its entries have {largest}.")
            table = LookupTable(table.first, table.entries, max(8, largest))
        yield table


def read_table(
    descriptor: list[int], data: bytes | int | list[int], is_little: bool, values: np.ndarray
) -> LookupTable:
    """Read a table, whose entries are 16-bit words, or bytes two in a word (C.11.1.1, C.7.6.3.1.5 and 6).

    Args:
        descriptor: number of entries (0 for 65536), the first value, bits of an entry.
        data: words as bytes in the file's order, or as numbers.
        is_little: whether the file is little-endian.
        values: what the table is for, since whether the first value is signed is at times written wrongly.

    Raises:
        ValueError: for fewer entries than the descriptor says.
    """
    count, first, bits = (int(one) for one in descriptor)
    count = count % MOST_ENTRIES or MOST_ENTRIES
    is_signed = values.dtype.kind == "i" or values.min() < 0
    if is_signed and first >= 1 << 15:
        first -= MOST_ENTRIES
    elif not is_signed and first + count <= 0:
        first += MOST_ENTRIES
    if isinstance(data, bytes):
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little else ">u2")
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)) % MOST_ENTRIES
    entries = words.astype(np.int64)
    if len(entries) < count <= 2 * len(entries):  # the first of two bytes is the lower one
        entries = np.stack([entries & 255, entries >> 8], axis=-1).ravel()
    if len(entries) < count:
        raise ValueError(f"it has {len(entries)} of {count} entries")
    return LookupTable(first, entries[:count], bits)


def _read_palette(dataset: Dataset, colour: str, stored: np.ndarray) -> LookupTable:
    """Read one colour's table, plain or in segments."""
    descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
    is_little = dataset.original_encoding[1]
    plain = f"{colour}PaletteColorLookupTableData"
    if plain in dataset:
        table = read_table(descriptor, dataset[plain].value, is_little, stored)
    else:
        data = dataset[f"Segmented{plain}"].value
        words = np.frombuffer(data, "<u2" if is_little else ">u2")
        if int(descriptor[2]) == 8:
            words = np.stack([words & 255, words >> 8], axis=-1).ravel()
        table = read_table(descriptor, expand_segments(words.tolist(), int(descriptor[2])), is_little, stored)
    if table.bits not in (8, 16):
        raise ValueError(f"its entries have {table.bits} bits; 8 or 16 are allowed")
    return table


def expand_segments(words: list[int], bits: int) -> list[int]:
    """Write out a segmented table (C.7.9.2): runs of entries, straight lines, and copies of earlier segments.

    Raises:
        ValueError: for an unknown segment, or more entries than a table may have.
        IndexError: for one that is cut off.
    """
    segments: list[tuple[int, int, list[int]]] = []  # where each begins, its kind, and what it holds
    entries: list[int] = []

    def write(kind: int, length: int, given: list[int]) -> None:
        if kind == 0:
            entries.extend(given)
        elif kind == 1:  # from the last entry, which is not repeated, to the given one
            start, slope = entries[-1], (given[0] - entries[-1]) / length
            entries.extend(math.floor(start + slope * step + 0.5) for step in range(1, length + 1))
        else:
            raise ValueError(f"it has a segment of kind {kind} where 0 and 1 are allowed")
        if len(entries) > MOST_ENTRIES:
            raise ValueError(f"it has more than {MOST_ENTRIES} entries")

    at, size = 0, bits // 8
    while at + 1 < len(words):
        kind, length = words[at : at + 2]
        operands = {0: length, 2: 4 // size}.get(kind, 1)
        given = words[at + 2 : at + 2 + operands]
        if len(given) < operands:
            raise IndexError("its last segment is cut off")
        segments.append((at, kind, [length, *given]))
        at += 2 + operands
        if kind != 2:
            write(kind, length, given)
            continue
        # An indirect segment copies so many segments from a byte offset, whose lower part comes first.
        offset = sum(part << (8 * size * place) for place, part in enumerate(given)) // size
        copied = [one for one in segments[:-1] if one[0] >= offset][:length]
        if len(copied) < length or copied[0][0] != offset:
            raise ValueError(f"it copies {length} segments from {offset}, where they are not")
        for _, earlier, parts in copied:
            write(earlier, parts[0], parts[1:])
    return entries
