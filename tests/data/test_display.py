"""Grey and palettes of DICOM against a plain reading of the standard: on pydicom's files, and on files made here."""

import io
import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medv_lab.data.display import LookupTable, expand_segments
from medv_lab.data.images import ImageError, notes_of, open_image
from tests.data.released import grey_levels, opened
from tests.data.test_dicom import make

CASES = Path(__file__).parent / "cases"
CORPUS = Path(pydicom.__file__).parent / "data" / "test_files"
LARGE_RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
HILL = (np.hypot(*np.mgrid[-32:32, -32:32]) * 25 + 100).astype(np.int16)  # 100 to 1231
BODY = np.hypot(*np.mgrid[-32:32, -32:32]) < 28


def plain_grey_files() -> list[Path]:
    """Files of pydicom's corpus with uncompressed grey pictures of whole bytes."""
    found = []
    for path in sorted(CORPUS.rglob("*")):
        if (
            path.suffix in ("", ".dcm")
            and path.is_file()
            and path.name not in ("badVR.dcm", "MR_truncated.dcm")
        ):
            dataset = pydicom.dcmread(path, force=True)
            syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
            is_grey = dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
            if is_grey and syntax and not syntax.is_encapsulated and dataset.BitsAllocated >= 8:
                found.append(path)
    return found


def levels_by_the_standard(path: Path) -> tuple[list[float], list[int]]:
    """Values of the first frame after the modality transform, and their greys, one pixel at a time."""
    dataset = pydicom.dcmread(path)
    size, stored_bits = dataset.BitsAllocated // 8, dataset.BitsStored
    order = "big" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "little"
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    values = []
    for at in range(0, dataset.Rows * dataset.Columns * size, size):
        stored = int.from_bytes(dataset.PixelData[at : at + size], order) >> (
            dataset.HighBit + 1 - stored_bits
        )
        stored %= 1 << stored_bits
        if dataset.PixelRepresentation and stored >= 1 << (stored_bits - 1):
            stored -= 1 << stored_bits
        values.append(stored * slope + intercept)
    if "WindowCenter" in dataset:
        parts = [dataset[name].value for name in ("WindowCenter", "WindowWidth")]
        center, width = (float(part if isinstance(part, float) else part[0]) for part in parts)
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    elif stored_bits <= 8 and not dataset.PixelRepresentation:
        low, high = 0, 2**stored_bits - 1
    else:
        low, high = np.percentile(values, (0.5, 99.5))
    greys = [255 * min(max((value - low) / (high - low), 0), 1) for value in values]
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        greys = [255 - grey for grey in greys]
    return values, greys


@pytest.mark.parametrize("path", plain_grey_files(), ids=lambda path: str(path.relative_to(CORPUS)))
def test_pydicom_s_grey_files_are_shown_as_the_standard_says(path):
    values, expected = levels_by_the_standard(path)
    found = grey_levels(path).ravel()
    if len(set(expected)) > 1 or len(set(values)) == 1:
        assert np.abs(found - np.array(expected)).max() <= 0.5 + 1e-6
    else:  # the window lies beside all values
        assert np.ptp(found) == 255 and "makes one grey" in " ".join(notes_of(open_image(path)))
        assert (np.diff(found[np.argsort(values, kind="stable")].astype(int)) >= 0).all()


def test_the_corpus_is_there():
    assert len(plain_grey_files()) >= 40


def table(first: int, entries, bits: int, *, packed: bool = False) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = np.asarray(entries, np.uint8 if packed else np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_of_8_bits_maps_a_ramp_of_12(sequence, packed):
    entries = np.arange(4096) >> 4
    grey = grey_levels(make(LARGE_RAMP, **{sequence: [table(0, entries, 8, packed=packed)]}))
    if sequence == "VOILUTSequence":
        assert np.array_equal(grey.ravel(), entries)
    assert (np.diff(grey.ravel().astype(int)) >= 0).all() and np.unique(grey).size > 250


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("bits", range(8, 17))
def test_tables_of_all_depths_fill_the_greys(bits, syntax):
    entries = np.linspace(0, 2**bits - 1, 4096).round()
    grey = grey_levels(make(LARGE_RAMP, syntax=syntax, VOILUTSequence=[table(0, entries, bits)]))
    assert np.abs(grey.ravel() - np.linspace(0, 255, 4096)).max() <= 1


@pytest.mark.parametrize("first", [-300, 65536 - 300, 40, 0])
def test_values_beyond_a_table_have_its_ends(first):
    stored = np.array([[-400, -300, -299, -250, 39, 40, 41, 3000]], np.int16)
    entries = np.arange(100) * 2
    grey = grey_levels(make(stored, VOILUTSequence=[table(first, entries, 8)]))
    start = first - 65536 if first > 32767 else first
    assert grey[0].tolist() == [2 * min(max(int(value) - start, 0), 99) for value in stored[0]]


def test_a_table_of_high_unsigned_values():
    stored = np.arange(60_000, 60_100, dtype=np.uint16).reshape(10, 10)
    grey = grey_levels(make(stored, VOILUTSequence=[table(60_000, np.arange(100), 8)]))
    assert grey.ravel().tolist() == list(range(100))


def test_a_table_of_65536_entries():
    stored = np.array([[0, 255, 256, 65535]], np.uint16)
    grey = grey_levels(make(stored, VOILUTSequence=[table(0, np.arange(65536)[::-1], 16)]))
    assert grey.tolist() == [[255, 254, 254, 0]]


@pytest.mark.parametrize("first", [-100, 65536 - 100])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_table_of_rescaled_values(first, syntax):
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": -100}
    data = make(LARGE_RAMP, syntax=syntax, **rescale, VOILUTSequence=[table(first, range(256), 8)])
    assert np.array_equal(grey_levels(data).ravel(), np.minimum(np.rint(np.arange(4096) / 2), 255))


def test_the_first_table_that_can_be_used_counts_then_the_window():
    cut = table(0, range(100), 8)
    cut.LUTDescriptor = [4096, 0, 8]
    whole, window = table(0, np.arange(4096) >> 4, 8), {"WindowCenter": 2048, "WindowWidth": 4096}
    both = open_image(make(LARGE_RAMP, VOILUTSequence=[cut, whole], **window))
    assert np.array_equal(np.asarray(both)[..., 0].ravel(), np.arange(4096) >> 4)
    alone = open_image(make(LARGE_RAMP, VOILUTSequence=[cut], **window))
    assert np.array_equal(np.asarray(alone), opened(make(LARGE_RAMP, **window)))
    assert all("VOILUTSequence" in " ".join(notes_of(image)) for image in (both, alone))


# Rescale and windows that are empty or unusual.


def test_case_8_empty_rescale():
    image = open_image(CASES / "empty_rescale.dcm")
    assert np.unique(np.asarray(image)).size > 50
    assert "RescaleIntercept is empty" in notes_of(image)[0]


@pytest.mark.parametrize("slope", [None, "", "2", "0", "nan"])
@pytest.mark.parametrize("intercept", [None, "", "-1024", "inf"])
def test_rescale_that_is_empty_or_no_number_is_1_and_0(slope, intercept):
    used = float(slope) if slope == "2" else 1.0
    used_intercept = -1024.0 if intercept == "-1024" else 0.0
    window = {"WindowCenter": 600 * used + used_intercept, "WindowWidth": 800 * used}
    data = make(HILL, **window)
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        dataset.add_new(keyword, "DS", None if value is None else "")
        if value:
            dataset[keyword]._value = value  # also what is no decimal string
    rescaled = written(dataset)
    expected = 255 * np.clip(
        (HILL * used + used_intercept - (window["WindowCenter"] - window["WindowWidth"] / 2))
        / (window["WindowWidth"] - 1),
        0,
        1,
    )
    assert np.abs(grey_levels(rescaled) - expected).max() <= 0.5 + 1e-6
    noted = " ".join(notes_of(open_image(rescaled)))
    assert ("RescaleSlope" in noted) == (slope != "2")
    assert ("RescaleIntercept" in noted) == (intercept != "-1024")


def written(dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    return buffer.getvalue()


def test_case_8_a_window_narrower_than_1_is_read_exactly():
    image = open_image(CASES / "fraction_window.dcm")
    values = pydicom.dcmread(CASES / "fraction_window.dcm").pixel_array * 0.0001
    assert np.abs(np.asarray(image)[..., 0] - 255 * np.clip(values / 0.12, 0, 1)).max() <= 0.5 + 1e-6
    assert "WindowWidth is 0.12" in " ".join(notes_of(image))


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "sigmoid", "LINEAR", "", "CUBIC"])
def test_windows_of_every_function(function):
    center, width = 600.0, 400.0
    grey = grey_levels(make(HILL, WindowCenter=center, WindowWidth=width, VOILUTFunction=function))
    if function == "sigmoid":
        expected = [255 / (1 + math.exp(-4 * (value - center) / width)) for value in HILL.ravel().tolist()]
    elif function == "LINEAR_EXACT":
        expected = 255 * np.clip((HILL.ravel() - 400) / 400, 0, 1)
    else:
        expected = 255 * np.clip((HILL.ravel() - (599.5 - 199.5)) / 399, 0, 1)
    assert np.abs(grey.ravel() - np.array(expected)).max() <= 0.5 + 1e-6


def test_a_window_of_width_1_is_a_threshold():
    image = open_image(make(HILL, WindowCenter=601, WindowWidth=1))
    assert np.array_equal(np.asarray(image)[..., 0] == 255, HILL > 600)
    assert "only 2 greys" in notes_of(image)[-1]


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 600, "WindowWidth": 0},
        {"WindowCenter": 600, "WindowWidth": -5},
        {"WindowCenter": 600},
        {"WindowCenter": 600, "WindowWidth": None},
        {"WindowCenter": None, "WindowWidth": None},
        {"VOILUTSequence": []},
        {"VOILUTSequence": [Dataset()]},
        {"ModalityLUTSequence": [Dataset()]},
        {"WindowCenter": -5000, "WindowWidth": 100},
        {"WindowCenter": 30000, "WindowWidth": 10, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": [table(5000, range(100), 8)]},
    ],
    ids=str,
)
def test_what_cannot_be_used_gives_way_to_the_picture_s_own_window_and_is_noted(elements):
    image = open_image(make(HILL, **elements))
    assert np.array_equal(np.asarray(image), opened(make(HILL)))
    assert len(notes_of(image)) > len(notes_of(open_image(make(HILL))))


def test_the_next_window_counts_where_the_first_shows_nothing():
    image = open_image(make(HILL, WindowCenter=[9000, 600], WindowWidth=[10, 400]))
    assert np.array_equal(np.asarray(image), opened(make(HILL, WindowCenter=600, WindowWidth=400)))
    assert "center 9000" in notes_of(image)[0]


def test_a_window_that_clips_nearly_all_is_noted():
    image = open_image(make(HILL, WindowCenter=1180, WindowWidth=20))
    assert "% of the pixels black or white" in notes_of(image)[0]


def test_a_clean_file_has_no_notes():
    assert (
        notes_of(
            open_image(make(HILL, WindowCenter=600, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0))
        )
        == ()
    )


def test_a_flat_picture_keeps_its_window_and_is_noted():
    image = open_image(make(np.full((8, 8), 700, np.uint16), WindowCenter=600, WindowWidth=400))
    assert np.ptp(np.asarray(image)) == 0 and "one grey (192 of 255)" in notes_of(image)[0]


# Padding.


def test_case_6_padding_is_in_no_window_and_black():
    dataset = pydicom.dcmread(CASES / "padding.dcm")
    grey, stored = grey_levels(CASES / "padding.dcm"), dataset.pixel_array
    is_padding = stored == -32768
    low, high = np.percentile(stored[~is_padding], (0.5, 99.5))
    expected = 255 * np.clip((stored - low) / (high - low), 0, 1)
    assert np.abs(grey - expected)[~is_padding].max() <= 0.5 + 1e-6
    assert grey[is_padding].max() == 0 and np.unique(grey[~is_padding]).size > 45


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 600, "WindowWidth": 1200}])
@pytest.mark.parametrize(
    ("dtype", "padded", "elements"),
    [
        (np.int16, -2000, {"PixelPaddingValue": -2000}),
        (np.int16, -2000, {"PixelPaddingValue": 65536 - 2000}),
        (np.uint16, 65535, {"PixelPaddingValue": 65535}),
        (np.uint16, 63536, {"PixelPaddingValue": -2000}),
        (np.int16, -1990, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}),
        (np.int16, -1990, {"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2000}),
    ],
)
def test_declared_padding_is_black_and_out_of_the_window(dtype, padded, elements, window, photometric):
    stored = np.where(BODY, HILL, padded).astype(dtype)
    data = with_padding(stored, photometric, elements, window)
    grey = grey_levels(data).astype(int)
    alone = grey_levels(make(HILL[BODY].reshape(1, -1).astype(dtype), photometric, **window))[0]
    assert grey[~BODY].max() == 0
    assert np.array_equal(grey[BODY], alone)


def with_padding(stored, photometric, elements, window) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(make(stored, photometric, **window)))
    for name, value in elements.items():
        dataset.add_new(name, "SS" if value < 0 else "US", value)
    return written(dataset)


def test_a_picture_that_is_all_padding_is_shown_without_it():
    image = open_image(make(HILL, PixelPaddingValue=0, PixelPaddingRangeLimit=2000))
    assert np.array_equal(np.asarray(image), opened(make(HILL)))
    assert "All pixels are padding" in notes_of(image)[0]


@pytest.mark.parametrize("outside", [-32768, -2500, 30000])
def test_padding_that_is_not_declared_does_not_squeeze_the_picture(outside):
    image = open_image(make(np.where(BODY, HILL, outside).astype(np.int16)))
    grey = np.asarray(image)[..., 0]
    assert np.unique(grey[BODY]).size > 150 and np.unique(grey[~BODY]).tolist() == [255 if outside > 0 else 0]
    assert "far from all others" in notes_of(image)[0]


# The bits that count.


@pytest.mark.parametrize("high_bit", [11, 13, 15])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_stored_bits_end_at_the_high_bit(dtype, high_bit):
    ramp = LARGE_RAMP.astype(dtype) - (2048 if dtype == np.int16 else 0)
    junk = np.random.default_rng(0).integers(0, 1 << 16, ramp.shape).astype(np.uint16)
    mask = np.uint16(0xFFF << (high_bit - 11) & 0xFFFF)
    packed = (ramp.astype(np.uint16) << (high_bit - 11) & mask) | (junk & ~mask)
    window = {"WindowCenter": 0 if dtype == np.int16 else 2048, "WindowWidth": 4096}
    data = make(packed.view(dtype), BitsStored=12, HighBit=high_bit, **window)
    assert np.array_equal(grey_levels(data), grey_levels(make(ramp, **window)))


# Palettes.


def palette(tables, bits: int, first: int = 0, segmented: bool = False, order: str = "<") -> dict:
    elements = {}
    for name, entries in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        prefix = "Segmented" if segmented else ""
        elements[f"{prefix}{name}PaletteColorLookupTableData"] = np.asarray(entries, f"{order}u2").tobytes()
    return elements


def test_palettes_of_8_bits_in_words_and_of_stored_16_bits():
    tables = [np.arange(256), np.arange(256)[::-1], np.full(256, 7)]
    expected = np.stack(tables, axis=-1)
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16) + 1000
    assert np.array_equal(
        opened(make(stored, "PALETTE COLOR", **palette(tables, 8, 1000))).reshape(-1, 3), expected
    )
    image = open_image(make(stored, "PALETTE COLOR", **palette(tables, 16, 1000)))
    assert np.array_equal(np.asarray(image).reshape(-1, 3), expected) and "16 bits" in notes_of(image)[0]


def test_a_big_endian_palette():
    tables = np.array([[0, 250], [100, 0], [7, 9]]) * 257
    data = make(
        np.array([[0, 1]], np.uint8), "PALETTE COLOR", ExplicitVRBigEndian, **palette(tables, 16, order=">")
    )
    assert opened(data).tolist() == [[[0, 100, 7], [250, 0, 9]]]


def test_segments_are_written_out():
    # a run, a line from its last entry, and a copy of both
    words = [0, 3, 10, 20, 30, 1, 4, 70, 2, 2, 0, 0]
    assert expand_segments(words, 16) == [10, 20, 30, 40, 50, 60, 70, 10, 20, 30, 40, 50, 60, 70]
    assert expand_segments([0, 2, 5, 9, 2, 1, 0, 0, 0, 0], 8) == [5, 9, 5, 9]
    with pytest.raises(ValueError, match="copies"):
        expand_segments([0, 1, 5, 2, 1, 3, 0], 16)
    with pytest.raises(IndexError):
        expand_segments([1, 4, 9], 16)


def test_a_segmented_palette():
    lines = [[0, 1, 0, 1, 255, 65535], [0, 1, 65535, 1, 255, 0], [0, 256, *range(0, 65536, 256)]]
    elements = palette(lines, 16, segmented=True)
    for name in ("Red", "Green", "Blue"):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
    pixels = opened(
        make(np.arange(256, dtype=np.uint8).reshape(16, 16), "PALETTE COLOR", **elements)
    ).reshape(-1, 3)
    expected = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256)], axis=-1)
    assert np.abs(pixels - expected).max() <= 1


def test_a_palette_that_is_cut_off_is_refused():
    elements = palette([[0, 1]] * 3, 16) | {"GreenPaletteColorLookupTableDescriptor": [200, 0, 16]}
    with pytest.raises(ImageError, match="palette.*2 of 200 entries"):
        open_image(make(np.zeros((2, 2), np.uint8), "PALETTE COLOR", **elements))


def test_look_up_rounds():
    own = LookupTable(-1, np.array([5, 6, 7]), 8)
    assert own.look_up(np.array([-9.0, -0.6, 0.4, 0.6, 99.0])).tolist() == [5, 5, 6, 7, 7]
