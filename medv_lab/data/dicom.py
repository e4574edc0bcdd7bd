"""DICOM files as 8-bit RGB pixels, as a viewer would show them.

Grey pictures: modality LUT or rescale slope and intercept, then the file's VOI LUT or first window, then
MONOCHROME1 inverted. Without a window, unsigned pictures of 8 bits or fewer keep their full range and all
others get the percentile window of `pixels.window_grey`. In enhanced multi-frame files the frame's own
functional groups come first. Colour: PALETTE COLOR, RGB and YBR, any planar configuration. Overlays are not
drawn.
"""

import struct
import zlib
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medv_lab.data.pixels import ImageError, check_frame, check_pixels, reporting, stretch, window_grey

PREAMBLE = 128
HEAD_LENGTH = 1024  # bytes of a file that `is_dicom` wants to see
DECODING_ERRORS = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
DAMAGED = "The file is damaged or incomplete: export it again, uncompressed if possible."
INSTALL = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GREY_ELEMENTS = (
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
)
FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
LIMITLESS = 1e9  # beyond any window


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


def decode_dicom(file: BinaryIO, name: str, frame: int, max_pixels: int) -> np.ndarray:
    """Decode one frame of a DICOM file to uint8 RGB.

    Args:
        file: open binary file for which `is_dicom` holds.
        name: what error messages call the picture.
        frame: which frame, from 0.
        max_pixels: limit on rows x columns x frames, checked before pixels are decoded.

    Returns:
        uint8 array (rows, columns, 3).

    Raises:
        ImageError: for damaged files, files without a picture, a frame out of range, too many pixels, or a
            compressed transfer syntax without an installed decoder (named, with what to install).
    """
    _check_deflated(file, name, max_pixels)
    with reporting(DECODING_ERRORS, name, DAMAGED):
        dataset = pydicom.dcmread(file, force=True)
        if not any(element in dataset for element in PIXEL_ELEMENTS):
            kind = dataset.get("SOPClassUID", "unknown SOP class")
            raise ImageError(
                f"{name} is DICOM ({getattr(kind, 'name', kind)}) without pixel data. "
                "Give a file that holds a picture."
            )
        _complete_syntax(dataset)
        frames = int(dataset.get("NumberOfFrames") or 1)
        check_pixels(
            name, int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0), frames, max_pixels
        )
        check_frame(name, frame, frames)
        _check_decoder(dataset, name)
        syntax = dataset.file_meta.TransferSyntaxUID.name
        with reporting(
            (RuntimeError,), name, f"The file is damaged, or {syntax} needs another decoder: {INSTALL}."
        ):
            pixels = pixel_array(dataset, index=frame)
        return _to_rgb(dataset, pixels, name, frame)


def _check_deflated(file: BinaryIO, name: str, max_pixels: int) -> None:
    """Refuse a deflated data set that would inflate far beyond the pixel limit (8 bytes per pixel)."""
    head = file.read(HEAD_LENGTH)
    file.seek(0)
    meta = head[PREAMBLE + 4 :]
    if DeflatedExplicitVRLittleEndian.encode() not in meta or meta[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        return
    start = PREAMBLE + 4 + 12 + struct.unpack("<I", meta[8:12])[0]
    file.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with reporting((zlib.error,), name, DAMAGED):
        inflater.decompress(file.read(), 8 * max_pixels)
    if inflater.unconsumed_tail:
        raise ImageError(
            f"{name} inflates to more than {8 * max_pixels} bytes ({max_pixels} pixels are allowed). "
            "Store it uncompressed, or pass a larger max_pixels if you trust the file."
        )
    file.seek(0)


def _complete_syntax(dataset: Dataset) -> None:
    """Name the transfer syntax of a file without meta information: the plain encoding it was read with."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit


def _check_decoder(dataset: Dataset, name: str) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError(
            f"{name} has transfer syntax {syntax.name} ({syntax}), which pydicom "
            f"{pydicom.__version__} cannot decode. Convert it to Explicit VR Little Endian."
        ) from error
    if not decoder.is_available:
        raise ImageError(
            f"{name} is compressed as {syntax.name} ({syntax}) and no decoder for it is installed. "
            f"Install one of: {'; '.join(decoder.missing_dependencies)} (for example: {INSTALL}), "
            "or store it uncompressed."
        )


def _to_rgb(dataset: Dataset, pixels: np.ndarray, name: str, frame: int) -> np.ndarray:
    """Convert decoded pixels (H, W) or (H, W, 3) to uint8 RGB by the file's photometric interpretation."""
    photometric = str(dataset.get("PhotometricInterpretation", "none"))
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        grey = _show_grey(_grey_elements(dataset, frame), pixels, name)
        return np.repeat((255 - grey if photometric == "MONOCHROME1" else grey)[..., None], 3, axis=2)
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        if not dataset.original_encoding[1]:
            raise ImageError(
                f"{name} holds a big-endian palette, which pydicom {pydicom.__version__} reads in the "
                "wrong byte order. Convert it to Explicit VR Little Endian."
            )
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        return stretch(pixels, 0, np.iinfo(pixels.dtype).max)
    is_colour = photometric == "RGB" or photometric.startswith("YBR")
    if is_colour and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.kind == "u":
        return stretch(pixels, 0, 2 ** int(dataset.BitsStored) - 1)
    raise ImageError(
        f"{name} has photometric interpretation {photometric} with {pixels.dtype} pixels of shape "
        f"{pixels.shape}. Allowed are MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB and YBR (unsigned): "
        "convert the file to one of them."
    )


def _grey_elements(dataset: Dataset, frame: int) -> Dataset:
    """Return the elements that say how grey is shown, the frame's own functional groups first."""
    elements = Dataset()
    elements.set_original_encoding(*dataset.original_encoding)  # tables stored as bytes need the byte order
    for keyword in GREY_ELEMENTS:
        if keyword in dataset:
            elements.add(dataset[keyword])
    groups = [*dataset.get("SharedFunctionalGroupsSequence", [])[:1]]
    groups += dataset.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1]
    for group in groups:
        for sequence in FRAME_GROUPS:
            for item in group.get(sequence, [])[:1]:
                for element in item:
                    if element.keyword in GREY_ELEMENTS:
                        elements.add(element)
    return elements


def _show_grey(elements: Dataset, pixels: np.ndarray, name: str) -> np.ndarray:
    """Convert stored grey values (H, W) to uint8: modality, then the file's window or lookup table, then 8 bits."""
    values = apply_modality_lut(pixels, elements)
    if elements.get("VOILUTSequence"):
        bits = elements.VOILUTSequence[0].LUTDescriptor[2]
        return stretch(apply_voi_lut(values, elements), 0, 2**bits - 1)
    if elements.get("WindowWidth") is not None and elements.get("WindowCenter") is not None:
        with np.errstate(over="ignore"):  # a sigmoid window saturates far outside
            darkest, brightest = apply_voi_lut(np.array([-LIMITLESS, LIMITLESS]), elements)
            return stretch(apply_voi_lut(values, elements), darkest, brightest)
    bits = int(elements.get("BitsStored", 64))
    if bits <= 8 and pixels.dtype.kind == "u" and np.array_equal(values, pixels):
        return stretch(values, 0, 2**bits - 1)
    return window_grey(name, values)
