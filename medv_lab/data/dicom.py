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
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medv_lab.data.pixels import MAX_PIXELS, ImageError, check_frame, check_size, stretch, window_grey

PREAMBLE = 128
HEAD_LENGTH = 1024  # bytes of a file that `is_dicom` wants to see
MAX_INFLATED = 8 * MAX_PIXELS  # bytes
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


def decode_dicom(file: BinaryIO, frame: int) -> np.ndarray:
    """Decode one frame of a DICOM file to uint8 RGB.

    Args:
        file: open binary file for which `is_dicom` holds.
        frame: which frame, from 0.

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
    check_frame(frame, int(dataset.get("NumberOfFrames") or 1))
    try:
        pixels = pixel_array(dataset, index=frame)
    except RuntimeError as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        raise ImageError(
            f"cannot be decoded ({error}). It is damaged, or no decoder of its transfer syntax {syntax.name} "
            f"({syntax}) is installed: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or convert "
            "the file to Explicit VR Little Endian."
        ) from error
    return _to_rgb(dataset, pixels, frame)


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


def _to_rgb(dataset: Dataset, pixels: np.ndarray, frame: int) -> np.ndarray:
    """Convert decoded pixels (H, W) or (H, W, 3) to uint8 RGB by the file's photometric interpretation."""
    photometric = str(dataset.get("PhotometricInterpretation", "none"))
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        grey = _show_grey(_grey_elements(dataset, frame), pixels)
        return np.repeat((255 - grey if photometric == "MONOCHROME1" else grey)[..., None], 3, axis=2)
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        if not dataset.original_encoding[1]:
            raise ImageError(
                f"holds a big-endian palette, which pydicom {pydicom.__version__} reads in the "
                "wrong byte order. Convert it to Explicit VR Little Endian."
            )
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        return stretch(pixels, 0, np.iinfo(pixels.dtype).max)
    is_colour = photometric == "RGB" or photometric.startswith("YBR")
    if is_colour and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.kind == "u":
        return stretch(pixels, 0, 2 ** int(dataset.BitsStored) - 1)
    raise ImageError(
        f"has photometric interpretation {photometric} with {pixels.dtype} pixels of shape "
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


def _show_grey(elements: Dataset, pixels: np.ndarray) -> np.ndarray:
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
    return window_grey(values)
