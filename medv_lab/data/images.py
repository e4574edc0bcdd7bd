"""Open any medical picture as 8-bit RGB, or say exactly why not.

Files are recognised by content, never by extension: PNG, JPEG, TIFF, WebP and BMP through Pillow, DICOM
through `dicom`. How pixels become 8-bit RGB:

- 1-bit, 8-bit grey, palette, CMYK and YCbCr: Pillow's conversion; 16-bit colour PNG keeps its high bytes.
- Transparency (RGBA, LA, palette or colour-key): on black.
- Deep grey (16 or 32 bits, or float): the picture's own 0.5-99.5 percentile window (`pixels.window_grey`).
- EXIF orientation is applied.

Real pictures to try it on come inside installed packages (`sample_images`).
"""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from pydicom.data import get_testdata_file

from medv_lab.data.dicom import HEAD_LENGTH, decode_dicom, is_dicom
from medv_lab.data.pixels import (
    MAX_PIXELS,
    ImageError,
    check_frame,
    check_pixels,
    reporting,
    stretch,
    window_grey,
)

__all__ = ["ImageError", "Picture", "open_image", "sample_images"]

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
ALLOWED = "PNG, JPEG, TIFF, WebP, BMP or DICOM"
ARRAYS = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
DIRECT_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
DECODING_ERRORS = (
    EOFError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
DAMAGED = "The picture is damaged, incomplete or too large: open it in an image viewer and save it again."

SAMPLES = {  # name -> file in the packages pydicom or pydicom-data
    "chest x-ray": "RG1_UNCR.dcm",
    "head ct": "693_UNCR.dcm",
    "shoulder mri": "MR2_UNCR.dcm",
    "spine ct": "CT_small.dcm",
}

Picture = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray


def open_image(source: Picture, *, frame: int = 0, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture as 8-bit RGB.

    Args:
        source: a path, the bytes of a file, a Pillow image, or an array (H, W[, 1 | 3 | 4]) of bool, uint8,
            other integers, or floats in 0..1. Integer grey arrays other than uint8 get the percentile window;
            uint16 colour is divided by 257.
        frame: which frame of a multi-frame TIFF, WebP or DICOM, from 0; 0 for everything else.
        max_pixels: limit on width x height (x frames for DICOM), checked before pixels are decoded.

    Returns:
        A new Pillow image of mode RGB.

    Raises:
        ImageError: the source is missing, empty, a folder, of an unknown type or format, damaged, too large,
            without pixels, holds NaN, or lacks the frame; the message says what is allowed and what to do.
    """
    if isinstance(source, Image.Image):
        check_frame("the given Pillow image (seek it yourself: its current frame)", frame, 1)
        return _convert(source, "the given Pillow image", max_pixels)
    if isinstance(source, np.ndarray):
        check_frame("the given array", frame, 1)
        return Image.fromarray(_array_to_rgb(source, max_pixels))
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return _decode(io.BytesIO(content), f"the given data ({len(content)} bytes)", frame, max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"{source!r:.80} ({type(source).__name__}) is not a picture. "
            "Give a path, bytes, a Pillow image or a NumPy array."
        )
    path = Path(source)
    with reporting((OSError, ValueError), f"{str(path)!r}", "Check the path and that you may read the file."):
        if path.is_dir():
            raise ImageError(f"{str(path)!r} is a folder. Give the path of one {ALLOWED} file.")
        if not path.exists():
            raise ImageError(
                f"{str(path)!r} does not exist. Give the path of a local {ALLOWED} file "
                "(nothing is downloaded)."
            )
        if not path.is_file():
            raise ImageError(f"{str(path)!r} is not a regular file. Give the path of a {ALLOWED} file.")
        with path.open("rb") as file:
            return _decode(file, f"{str(path)!r}", frame, max_pixels)


def sample_images() -> dict[str, Path]:
    """Return paths of real, freely redistributable DICOM pictures, by name; nothing is downloaded.

    Raises:
        FileNotFoundError: when the package pydicom-data, which holds some of them, is not installed.
    """
    paths = {name: get_testdata_file(file, download=False) for name, file in SAMPLES.items()}
    missing = [SAMPLES[name] for name, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} not found: install the package with `pip install pydicom-data`"
        )
    return {name: Path(path) for name, path in paths.items()}


def _decode(file: io.BufferedIOBase, name: str, frame: int, max_pixels: int) -> Image.Image:
    head = file.read(HEAD_LENGTH)
    file.seek(0)
    if not head:
        raise ImageError(f"{name} is empty. Give a {ALLOWED} file.")
    if is_dicom(head):
        return Image.fromarray(decode_dicom(file, name, frame, max_pixels))
    try:
        with reporting(DECODING_ERRORS, name, DAMAGED):
            image = Image.open(file, formats=FORMATS)
    except ImageError as error:
        if not isinstance(error.__cause__, Image.UnidentifiedImageError):
            raise
        raise ImageError(
            f"{name} is not a readable picture: it starts with {head[:12]!r}. Allowed are {ALLOWED}, "
            "recognised by content; convert the file, or export it again if it should be one of them."
        ) from error.__cause__
    with image:
        check_pixels(name, *image.size, 1, max_pixels)
        with reporting(DECODING_ERRORS, name, DAMAGED):
            check_frame(name, frame, getattr(image, "n_frames", 1))
            image.seek(frame)
        return _convert(image, name, max_pixels)


def _convert(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Convert the current frame of a Pillow image to 8-bit RGB, upright."""
    check_pixels(name, *image.size, 1, max_pixels)
    with reporting(DECODING_ERRORS, name, DAMAGED):
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in DEEP_MODES:
            return Image.fromarray(window_grey(name, np.asarray(upright))).convert("RGB")
        if upright.mode in TRANSPARENT_MODES or (
            upright.mode in DIRECT_MODES and "transparency" in upright.info
        ):
            layer = upright.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
        if upright.mode in DIRECT_MODES:
            return upright.convert("RGB")
    raise ImageError(
        f"{name} has Pillow mode {upright.mode!r}. Allowed are "
        f"{', '.join((*DIRECT_MODES, *TRANSPARENT_MODES, *DEEP_MODES))}: convert it to RGB first."
    )


def _array_to_rgb(array: np.ndarray, max_pixels: int) -> np.ndarray:
    """Convert an array of any allowed shape and type to uint8 (H, W, 3)."""
    name = f"the given array of shape {array.shape} and type {array.dtype}"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} is not a picture. Allowed shapes are {ARRAYS}, channels last.")
    check_pixels(name, array.shape[1], array.shape[0], 1, max_pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError(f"{name} holds NaN or infinite values. Replace them with numbers first.")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"{name} runs from {array.min():g} to {array.max():g}. "
                "Floats must lie in 0..1: scale them, or use integers."
            )
        array = stretch(array, 0, 1)
    elif array.dtype == bool:
        array = stretch(array.astype(np.uint8), 0, 1)
    elif array.ndim == 3 and array.dtype == np.uint16:
        array = stretch(array, 0, 65535)
    elif array.ndim == 2 and array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = window_grey(name, array)
    if array.dtype != np.uint8:
        raise ImageError(
            f"{name} has the wrong type. Allowed are bool, uint8, uint16, floats in 0..1, and any "
            "integer for grey."
        )
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    if array.shape[2] == 4:
        return (array[..., :3] * (array[..., 3:] / 255) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(array)
