"""DICOM files as 8-bit RGB pixels, as a viewer would show them.

Grey pictures and palettes as `display` says; in enhanced multi-frame files the frame's own functional groups come
first. Colour: RGB and YBR of the full and of the partial range, any planar configuration, and to sRGB where the file
has a colour profile. Overlays are not drawn. pydicom finds and decompresses the stored values; which of their bits
count, and what colours they are, is read here.
"""

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from medv_lab.data.display import GREY_ELEMENTS, show_grey, show_palette
from medv_lab.data.pixels import MAX_PIXELS, ImageError, check_frame, check_size, stretch, to_srgb

PREAMBLE = 128
HEAD_LENGTH = 1024  # bytes of a file that `is_dicom` wants to see
MAX_INFLATED = 8 * MAX_PIXELS  # bytes
PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT")
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_RCT", *YBR)
FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def is_dicom(head: bytes) -> bool:
    """Return True if a file that starts with `head` is DICOM, judged by content.

    Either `DICM` follows the 128-byte preamble or, for files without one, the first element is a known tag of
    group 2 or 8 with the right value representation, or (implicit) a short even length.
    """
    if head[PREAMBLE : PREAMBLE + 4] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(order + "HHI", head[:8])
        tag = group << 16 | element
        if group in (0x0002, 0x0008) and (element == 0 or dictionary_has_tag(tag)):
            representation = dictionary_VR(tag) if element else "UL"
            return head[4:6] == representation.encode() or (length % 2 == 0 and length <= 256)
    return False


def decode_dicom(file: BinaryIO, frame: int, notes: list[str]) -> np.ndarray:
    """Decode one frame of a DICOM file to uint8 RGB.

    Args:
        file: open binary file for which `is_dicom` holds.
        frame: which frame, from 0.
        notes: receives what the file says and could not be used, and what was used instead.

    Returns:
        uint8 array (rows, columns, 3).

    Raises:
        ImageError: for files without a picture, a frame out of range, too many pixels, or a transfer syntax without
            an installed decoder (named, with what to install). Damaged files raise what pydicom raises.
    """
    _check_deflated(file)
    dataset = pydicom.dcmread(file, force=True)
    if not any(element in dataset for element in PIXEL_ELEMENTS):
        kind = dataset.get("SOPClassUID", "unknown SOP class")
        raise ImageError(
            f"is DICOM ({getattr(kind, 'name', kind)}) without pixel data. Give a file that holds a picture."
        )
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:  # then it is the plain encoding it was read with
        is_implicit, is_little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    check_size(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0))
    frames = str(dataset.get("NumberOfFrames") or 1).strip()
    if not frames.isdigit():
        notes.append(f"NumberOfFrames is {frames!r}: read as 1.")
        dataset.NumberOfFrames = frames = 1
    check_frame(frame, int(frames))
    try:
        pixels, photometric = _decode_stored(dataset, frame)
    except RuntimeError as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        raise ImageError(
            f"cannot be decoded ({error}). It is damaged, or no decoder of its transfer syntax {syntax.name} "
            f"({syntax}) is installed: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or convert "
            "the file to Explicit VR Little Endian."
        ) from error
    return _to_rgb(dataset, pixels, photometric, frame, notes)


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that would inflate far beyond the pixel limit."""
    head = file.read(HEAD_LENGTH)
    file.seek(0)
    meta = head[PREAMBLE + 4 :]
    if DeflatedExplicitVRLittleEndian.encode() not in meta or meta[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        return
    file.seek(PREAMBLE + 4 + 12 + struct.unpack("<I", meta[8:12])[0])
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(file.read(), MAX_INFLATED)
    file.seek(0)
    if inflater.unconsumed_tail:
        raise ImageError(
            f"inflates to more than {MAX_INFLATED} bytes. Store it uncompressed if you trust it."
        )


def _decode_stored(dataset: Dataset, frame: int) -> tuple[np.ndarray, str]:
    """Return stored values (H, W) or (H, W, 3), and the photometric interpretation that they have once decompressed."""
    syntax = dataset.file_meta.TransferSyntaxUID
    photometric = str(dataset.get("PhotometricInterpretation", "none")).strip().upper()
    if photometric not in PHOTOMETRIC:
        raise ImageError(
            f"has photometric interpretation {photometric}. Allowed are {', '.join(PHOTOMETRIC)}: convert the file to "
            "one of them."
        )
    # Partial-range colours are laid out in the file as those of the full range, which pydicom knows.
    options = {"photometric_interpretation": photometric.replace("YBR_PARTIAL", "YBR_FULL")}
    is_jpeg = syntax == JPEGBaseline8Bit
    pixels, found = get_decoder(syntax).as_array(
        dataset,
        index=frame,
        raw=True,
        decoding_plugin="pillow" if is_jpeg else "",
        **as_pixel_options(dataset, correct_unused_bits=False, **options),
    )
    is_packed = not syntax.is_encapsulated or syntax == RLELossless
    if is_packed and pixels.dtype.kind in "iu" and pixels.dtype.itemsize * 8 == dataset.BitsAllocated:
        # The bits that count end at the high bit; others hold overlays, or anything.
        stored = int(dataset.BitsStored)
        above = dataset.BitsAllocated - 1 - int(dataset.get("HighBit", stored - 1))
        pixels = pixels << max(above, 0) >> dataset.BitsAllocated - stored
    if is_jpeg and pixels.ndim == 3:
        frames = int(dataset.get("NumberOfFrames") or 1)
        with Image.open(io.BytesIO(get_frame(dataset.PixelData, frame, number_of_frames=frames))) as own:
            if own.info.get("adobe_transform"):  # Pillow has made it RGB already
                return pixels, "RGB"
    decoded = str(found["photometric_interpretation"])
    return pixels, photometric if photometric.startswith("YBR_PARTIAL") else decoded


def _to_rgb(
    dataset: Dataset, pixels: np.ndarray, photometric: str, frame: int, notes: list[str]
) -> np.ndarray:
    """Convert stored values (H, W) or (H, W, 3) to uint8 RGB by their photometric interpretation."""
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        grey = show_grey(_grey_elements(dataset, frame, notes), pixels, notes)
        return np.repeat(grey[..., None], 3, axis=2)
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.kind == "u"
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        colours = show_palette(dataset, pixels, notes)
    elif is_colour and photometric == "RGB":
        colours = stretch(pixels, 0, 2 ** int(dataset.BitsStored) - 1)
    elif is_colour and photometric in YBR:
        colours = ybr_to_rgb(pixels, int(dataset.BitsStored), photometric.startswith("YBR_PARTIAL"))
    else:
        raise ImageError(
            f"has {pixels.dtype} pixels of shape {pixels.shape}, which are not {photometric}. Export it again."
        )
    return np.asarray(to_srgb(Image.fromarray(colours), _color_profile(dataset), notes))


def ybr_to_rgb(pixels: np.ndarray, bits: int, is_partial: bool) -> np.ndarray:
    """Convert Y, CB and CR (H, W, 3) of so many bits to uint8 RGB (C.7.6.3.1.2).

    The full range has Y from 0 to the largest number; the partial one, of 8 bits, Y from 16 to 235 and CB and CR of
    225 levels about 128.
    """
    scale = 2.0 ** (bits - 8)
    y, cb, cr = np.moveaxis(pixels.astype(np.float32), -1, 0)
    cb, cr = cb - 128 * scale, cr - 128 * scale
    if is_partial:
        y, cb, cr = (y - 16 * scale) * (255 / 219), cb * (255 / 224), cr * (255 / 224)
    rgb = (
        y + 1.402 * cr,
        y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr,
        y + 1.772 * cb,
    )
    return stretch(np.stack(rgb, axis=-1), 0, 2**bits - 1)


def _color_profile(dataset: Dataset) -> bytes | None:
    """Return the ICC profile of a file, or of its optical path."""
    holders = [dataset, *(dataset.get("OpticalPathSequence") or ())[:1]]
    return next((holder.ICCProfile for holder in holders if holder.get("ICCProfile")), None)


def _grey_elements(dataset: Dataset, frame: int, notes: list[str]) -> Dataset:
    """Return the elements that say how grey is shown, the frame's own functional groups first."""
    elements = Dataset()
    elements.set_original_encoding(*dataset.original_encoding)  # tables stored as bytes need the byte order
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or ())[:1]]
    groups += (dataset.get("PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1]
    holders = [
        dataset,
        *(item for group in groups for name in FRAME_GROUPS for item in (group.get(name) or ())[:1]),
    ]
    for holder in holders:
        for keyword in GREY_ELEMENTS:
            if keyword not in holder:
                continue
            try:
                element = holder[keyword]
            except (TypeError, ValueError) as error:
                notes.append(f"{keyword} cannot be read ({error}): not used.")
                continue
            if keyword not in elements or not element.is_empty:
                elements.add(element)
    return elements
