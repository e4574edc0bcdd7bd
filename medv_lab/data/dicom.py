"""DICOM files as 8-bit RGB pixels, as a viewer would show them.

Grey pictures and palettes as `display` says; in enhanced multi-frame files the frame's own functional groups come
first. Colour: RGB and YBR of the full and of the partial range, any planar configuration, and to sRGB where the file
has a colour profile. Overlays are not drawn. pydicom finds and decompresses the stored values; which of their bits
count, and what colours they are, is read here.
"""

import io
import struct
import zlib
from functools import partial
from typing import BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    RLELossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from medv_lab.data.display import GREY_ELEMENTS, show_grey, show_palette
from medv_lab.data.pixels import MAX_PIXELS, ImageError, check_frame, check_size, in_bands, stretch, to_srgb

PREAMBLE = 128
HEAD_LENGTH = 1024  # bytes of a file that `is_dicom` wants to see
MAX_DECODED = 6 * MAX_PIXELS  # bytes: colours of 16 bits, which are held twice
MAX_INFLATED = MAX_DECODED + (1 << 24)
_INFLATED_AT_ONCE = 1 << 24
MAX_PARTS = 500_000  # elements and items of sequences, of which pydicom reads some 100,000 in a second
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how an item begins, in either byte order
_LONG = {name.encode() for name in EXPLICIT_VR_LENGTH_32}
MAX_DEFLATION = 1032  # bytes that one byte can inflate to
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


def decode_dicom(file: BinaryIO, frame: int, notes: list[str]) -> Image.Image:
    """Decode one frame of a DICOM file to 8-bit RGB.

    Args:
        file: open binary file for which `is_dicom` holds.
        frame: which frame, from 0.
        notes: receives what the file says and could not be used, and what was used instead.

    Returns:
        A Pillow image of mode RGB.

    Raises:
        ImageError: for files without a picture, a frame out of range, too many pixels, or a transfer syntax without
            an installed decoder (named, with what to install). Damaged files raise what pydicom raises.
    """
    _check_items(file)
    _check_deflated(file)
    dataset = pydicom.dcmread(file, force=True)
    dataset.buffer = None  # the inflated file, which its elements have been read from
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
    # Of a large picture, what is no longer needed takes hundreds of megabytes.
    for element in PIXEL_ELEMENTS:
        dataset.pop(element, None)
    shown = _show(dataset, pixels, photometric, frame, notes)
    del pixels
    image, profile = Image.fromarray(shown), None if shown.ndim == 2 else _color_profile(dataset)
    del shown
    return to_srgb(image, profile, notes).convert("RGB")


def _check_items(file: BinaryIO) -> None:
    """Refuse a file with so many items of sequences that reading it takes long."""
    items, part = 0, file.read(_INFLATED_AT_ONCE)
    while part:
        items += sum(map(part.count, _ITEMS))
        part = file.read(_INFLATED_AT_ONCE)
    file.seek(0)
    _check_parts(items)


def _check_parts(count: int) -> None:
    if count > MAX_PARTS:
        raise ImageError(
            f"has more than {MAX_PARTS} elements or items of sequences. Give the picture in a file of its own."
        )


def _count_parts(data: bytearray) -> int:
    """Count elements and items of an explicit little-endian data set, inside sequences too, until they are too many."""
    at = count = 0
    while at + 8 <= len(data) and count <= MAX_PARTS:
        group, kind, short = struct.unpack_from("<H2x2sH", data, at)
        is_long = kind in _LONG and at + 12 <= len(data)
        length = struct.unpack_from("<I", data, at + 8)[0] if is_long else short
        at += 12 if is_long else 8
        if group != 0xFFFE and kind != b"SQ" and length != 0xFFFFFFFF:
            at += length  # of items and sequences, what they hold comes next
        count += 1
    return count


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that would inflate far beyond the pixel limit, or into far too many elements."""
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    inflater, rest, inflated = zlib.decompressobj(-zlib.MAX_WBITS), b"", bytearray()
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        rest = file.read()
    while rest and not inflater.eof and len(inflated) <= MAX_INFLATED:
        inflated += inflater.decompress(rest, _INFLATED_AT_ONCE)
        rest = inflater.unconsumed_tail
    # After a command set pydicom would begin where this ends.
    size = len(inflated) + MAX_DEFLATION * len(inflater.unused_data)
    file.seek(0)
    if size > MAX_INFLATED:
        raise ImageError(
            f"inflates to more than {MAX_INFLATED} bytes. Store it uncompressed if you trust it."
        )
    _check_parts(_count_parts(inflated))


def _check_compressed(dataset: Dataset) -> None:
    """Refuse a compressed frame that would take far more memory than others while it is decoded."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    # JPEG 2000 is decoded in words of 32 bits.
    depth = 4 if syntax in JPEG2000TransferSyntaxes else int(dataset.get("BitsAllocated") or 8) // 8
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1) * depth
    if size > MAX_DECODED:
        raise ImageError(
            f"takes {size} bytes while it is decompressed; {MAX_DECODED} are allowed. Store it uncompressed, or make "
            "it smaller."
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
    decoder = get_decoder(syntax)
    _check_compressed(dataset)
    pixels, found = decoder.as_array(
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
        pixels <<= max(above, 0)
        pixels >>= dataset.BitsAllocated - stored
    if is_jpeg and pixels.ndim == 3:
        frames = int(dataset.get("NumberOfFrames") or 1)
        with Image.open(io.BytesIO(get_frame(dataset.PixelData, frame, number_of_frames=frames))) as own:
            if own.info.get("adobe_transform"):  # Pillow has made it RGB already
                return pixels, "RGB"
    decoded = str(found["photometric_interpretation"])
    return pixels, photometric if photometric.startswith("YBR_PARTIAL") else decoded


def _show(dataset: Dataset, pixels: np.ndarray, photometric: str, frame: int, notes: list[str]) -> np.ndarray:
    """Convert stored values (H, W) or (H, W, 3) to uint8 grey (H, W) or RGB (H, W, 3) by what they stand for."""
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        return show_grey(_grey_elements(dataset, frame, notes), pixels, notes)
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.kind == "u"
    bits = int(dataset.BitsStored)
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        return show_palette(dataset, pixels, notes)
    if is_colour and photometric == "RGB":
        return in_bands(partial(stretch, low=0, high=2**bits - 1), pixels)
    if is_colour and photometric in YBR:
        return in_bands(
            partial(ybr_to_rgb, bits=bits, is_partial=photometric.startswith("YBR_PARTIAL")), pixels
        )
    raise ImageError(
        f"has {pixels.dtype} pixels of shape {pixels.shape}, which are not {photometric}. Export it again."
    )


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
