"""DICOM through `open_image`: files written here, and the real ones inside pydicom. Nothing is downloaded."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageCms
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medv_lab.data.dicom import is_dicom
from medv_lab.data.images import ImageError, notes_of, open_image
from tests.data.released import grey_levels, opened, swapped_profile

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
DAMAGE = "damaged or incomplete"


def make(
    pixels: np.ndarray, photometric: str = "MONOCHROME2", syntax=ExplicitVRLittleEndian, **elements
) -> bytes:
    """A DICOM file: pixels (H, W), (H, W, 3) or frames first when NumberOfFrames is given."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    shape = pixels.shape[1:] if "NumberOfFrames" in elements else pixels.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = shape[2] if len(shape) == 3 else 1
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    return buffer.getvalue()


def test_content_decides_not_the_extension(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(make(RAMP))
    assert np.array_equal(grey_levels(path), RAMP)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_files_without_preamble_and_meta_information(syntax):
    data = make(RAMP, syntax=syntax)
    start = data.index(b"\x08\x00\x16\x00")  # SOPClassUID, the first element after the meta information
    assert is_dicom(data[start:])
    assert np.array_equal(grey_levels(data[start:]), RAMP)
    assert np.array_equal(grey_levels(data[132:]), RAMP)


@pytest.mark.parametrize(
    "head", [b"", b"\x08\x00", b"plain text that is long enough", b"\x08\x00\x00\x01" + b"\xff" * 9]
)
def test_what_does_not_look_like_dicom(head):
    assert not is_dicom(head)


def test_rescale_and_window_in_hounsfield_units():
    stored = np.array([[0, 984, 1064, 1144, 4000]], np.uint16)
    data = make(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40.5, WindowWidth=161)
    assert grey_levels(data).tolist() == [[0, 0, 128, 255, 255]]


def test_the_first_of_several_windows_counts():
    stored = np.array([[0, 100, 200]], np.uint16)
    several = make(stored, WindowCenter=[100.5, 5000], WindowWidth=[201, 10])
    assert np.array_equal(
        grey_levels(several), grey_levels(make(stored, WindowCenter=100.5, WindowWidth=201))
    )


def test_monochrome1_is_inverted():
    assert np.array_equal(grey_levels(make(RAMP, "MONOCHROME1")), 255 - RAMP.astype(int))


def test_deep_pictures_without_a_window_get_the_percentile_window():
    values = np.linspace(-900, 900, 10_000).reshape(100, 100).astype(np.int16)
    values[0, 0] = 32000
    grey = grey_levels(make(values))
    assert grey.max() == 255 and abs(int(np.median(grey)) - 128) <= 2


def test_voi_lookup_table():
    table = Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table.LUTData = np.array([0, 200, 100, 255], np.uint16).tobytes()
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    data = make(stored, VOILUTSequence=[table])
    assert grey_levels(data).tolist() == [[0, 200, 100, 255]]


def test_frames_and_their_own_windows():
    frames = np.stack([np.full((4, 4), value, np.uint16) for value in (10, 20, 30)])
    groups = []
    for value in (20, 20, 60):
        voi = Dataset()
        voi.WindowCenter, voi.WindowWidth = value / 2 + 0.5, value + 1
        group = Dataset()
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    data = make(frames, NumberOfFrames=3, PerFrameFunctionalGroupsSequence=groups)
    assert [grey_levels(data, frame=i)[0, 0] for i in range(3)] == [128, 255, 128]
    with pytest.raises(ImageError, match="has 3 frames, so frame 7 does not exist: use 0 to 2"):
        open_image(data, frame=7)


def test_colour_in_both_planar_configurations_and_16_bits():
    colour = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)
    assert np.array_equal(opened(make(colour, "RGB")), colour)
    planes = make(colour, "RGB", PlanarConfiguration=1, PixelData=np.moveaxis(colour, 2, 0).tobytes())
    assert np.array_equal(opened(planes), colour)
    assert np.array_equal(opened(make(colour.astype(np.uint16) * 257, "RGB")), colour)


ROSE = np.full((16, 16, 3), (200, 40, 90), np.uint8)


def test_ybr_becomes_rgb():
    ybr = np.asarray(Image.fromarray(ROSE).convert("YCbCr"))
    assert np.abs(opened(make(ybr, "YBR_FULL")) - ROSE).max() <= 2
    assert np.abs(opened(make(ybr.astype(np.uint16) * 257, "YBR_FULL")) - ROSE).max() <= 2


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_PARTIAL_422"])
def test_ybr_of_halved_columns_and_of_the_partial_range(photometric):
    y, cb, cr = np.asarray(Image.fromarray(ROSE).convert("YCbCr"))[0, 0].tolist()
    if photometric == "YBR_PARTIAL_422":
        y, cb, cr = (round(16 + y * 219 / 255), *(round(128 + (c - 128) * 224 / 255) for c in (cb, cr)))
    halved = np.array([y, y, cb, cr] * 128, np.uint8)  # Y1 Y2 CB CR
    assert np.abs(opened(make(ROSE, photometric, PixelData=halved.tobytes())) - ROSE).max() <= 3


def test_jpeg_colours_are_converted_once():
    buffer = io.BytesIO()
    Image.fromarray(ROSE).save(buffer, "JPEG", quality=95, subsampling=0)
    plain = buffer.getvalue()[:2] + buffer.getvalue()[20:]  # without its JFIF marker
    adobe = plain[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + plain[2:]
    for photometric, content in (("YBR_FULL_422", plain), ("YBR_FULL_422", adobe), ("RGB", adobe)):
        dataset = pydicom.dcmread(io.BytesIO(make(ROSE, photometric)))
        dataset.PixelData = encapsulate([content])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        file = io.BytesIO()
        dataset.save_as(file)
        assert np.abs(opened(file.getvalue()) - ROSE).max() <= 3


def test_a_colour_profile_is_used():
    image = open_image(make(ROSE, "RGB", ICCProfile=swapped_profile()))
    assert np.abs(np.asarray(image).astype(int) - ROSE[..., [1, 0, 2]]).max() <= 2
    assert "profile" in notes_of(image)[0]
    path = Dataset()
    path.ICCProfile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = open_image(make(ROSE, "RGB", OpticalPathSequence=[path]))
    assert np.array_equal(np.asarray(image), ROSE) and not any("profile" in note for note in notes_of(image))


def test_a_number_of_frames_that_is_none_is_1():
    image = open_image(get_testdata_file("badVR.dcm", download=False))
    assert image.size == (10, 10) and "NumberOfFrames is '1A'" in notes_of(image)[0]


def corpus_of_colour_bars():
    """The same picture in all the encodings that pydicom has it in, and how far chroma of half the columns may be."""
    names = [
        path.name
        for path in Path(get_testdata_file("SC_rgb_rle.dcm", download=False)).parent.glob("SC_*.dcm")
    ]
    others = ("small", "jls", "jpeg.dcm", "app14", "color_transform", "jpeg_dcmd", "jpeg_gdcm")
    return [name for name in sorted(names) if not any(part in name for part in others)]


@pytest.mark.parametrize("name", corpus_of_colour_bars())
def test_the_same_colours_in_every_encoding(name):
    plain = opened(get_testdata_file("SC_rgb_rle.dcm", download=False))
    far = np.abs(opened(get_testdata_file(name, download=False)) - plain).max(axis=2) > 8
    assert far.mean() < 0.12  # none but beside edges, where columns share their colours
    inner = np.zeros(far.shape, bool)
    inner[3:7, 3:-3] = True  # of the first bar
    assert not far[inner].any()


def test_palette_colour():
    red, green, blue = np.array([[0, 250], [100, 0], [7, 9]], np.uint16) * 257
    palette = {}
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    data = make(np.array([[0, 1]], np.uint8), "PALETTE COLOR", **palette)
    assert opened(data).tolist() == [[[0, 100, 7], [250, 0, 9]]]


def test_a_file_that_nothing_decodes_says_what_to_install(monkeypatch):
    data = make(RAMP).replace(ExplicitVRLittleEndian.encode(), b"1.2.840.10008.1.2.9")
    with pytest.raises(ImageError, match=r"transfer syntax 1\.2\.840\.10008\.1\.2\.9 .*pip install"):
        open_image(data)

    def refuse(syntax):
        raise RuntimeError("Unable to decompress: all plugins are missing dependencies")

    monkeypatch.setattr("medv_lab.data.dicom.get_decoder", refuse)
    path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    with pytest.raises(
        ImageError, match=f"missing dep.*{JPEGLSLossless.name}.*pip install.*convert the file"
    ):
        open_image(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PixelData": b"\0" * 10}, DAMAGE),
        ({"Rows": 0}, "no pixels"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV.*Allowed are MONOCHROME1"),
    ],
)
def test_broken_files_are_refused(changes, message):
    with pytest.raises(ImageError, match=message):
        open_image(make(RAMP, **changes))


@pytest.mark.parametrize("length", [140, 200, 400])
def test_cut_off_files_are_refused(length):
    with pytest.raises(ImageError, match=f"{DAMAGE}|without pixel data"):
        open_image(make(RAMP)[:length])
    with pytest.raises(ImageError, match=DAMAGE):
        open_image(get_testdata_file("MR_truncated.dcm", download=False))


def test_the_pixel_limit_comes_before_decoding(monkeypatch):
    monkeypatch.setattr("medv_lab.data.pixels.MAX_PIXELS", 99)
    monkeypatch.setattr("medv_lab.data.dicom.get_decoder", None)  # calling it would be a TypeError
    with pytest.raises(ImageError, match="10 x 10 = 100 pixels; 99 are allowed"):
        open_image(make(np.zeros((10, 10), np.uint8)))


def test_a_deflated_bomb_is_refused(monkeypatch):
    path = get_testdata_file("image_dfl.dcm", download=False)
    assert grey_levels(path).shape == (512, 512)
    monkeypatch.setattr("medv_lab.data.dicom.MAX_INFLATED", 80_000)
    with pytest.raises(ImageError, match="inflates to more than 80000 bytes"):
        open_image(path)


@pytest.mark.parametrize("name", ["rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm"])
def test_dicom_that_is_no_picture(name):
    with pytest.raises(ImageError, match="Storage.* without pixel data"):
        open_image(get_testdata_file(name, download=False))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("CT_small.dcm", (128, 128)),
        ("MR_small_bigendian.dcm", (64, 64)),
        ("MR_small_RLE.dcm", (64, 64)),
        ("examples_overlay.dcm", (300, 484)),
        ("examples_palette.dcm", (350, 800)),
        ("examples_ybr_color.dcm", (240, 320)),
        ("SC_rgb_small_odd.dcm", (3, 3)),
    ],
)
def test_real_files_open_with_contrast(name, shape):
    pixels = opened(get_testdata_file(name, download=False))
    assert pixels.shape == (*shape, 3) and np.ptp(pixels) > 100


def test_the_same_picture_in_other_encodings_has_the_same_pixels():
    plain = opened(get_testdata_file("MR_small.dcm", download=False))
    for name in ("MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_expb.dcm"):
        assert np.array_equal(opened(get_testdata_file(name, download=False)), plain)
