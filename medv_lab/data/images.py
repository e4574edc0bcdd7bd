"""Open any medical picture as 8-bit RGB, or say exactly why not.

Files are recognised by content, never by extension: PNG, JPEG, TIFF, WebP and BMP through Pillow, DICOM
through `dicom`. How pixels become 8-bit RGB:

- 1-bit, 8-bit grey, palette, CMYK and YCbCr: Pillow's conversion; 16-bit colour PNG keeps its high bytes. CIELAB and
  what has a colour profile: to sRGB.
- Transparency (RGBA, LA, palette or colour-key): on black, on white where next to nothing would be seen on black.
- Deep grey (16 or 32 bits, or float): the picture's own 0.5-99.5 percentile window (`pixels.window_grey`), inverted
  where a TIFF says that zero is white.
- EXIF orientation is applied.

Whatever is done to a picture besides, and next to nothing being seen in it, is said by `notes_of`. Real pictures to
try it on come inside installed packages (`sample_images`).
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError
from pydicom.data import get_testdata_file
from pydicom.errors import BytesLengthException, InvalidDicomError

from medv_lab.data.dicom import HEAD_LENGTH, decode_dicom, is_dicom
from medv_lab.data.pixels import (
    ImageError,
    boxes,
    check_frame,
    check_size,
    note_few_greys,
    stretch,
    to_srgb,
    window_grey,
)

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
ALLOWED = "PNG, JPEG, TIFF, WebP, BMP or DICOM"
ARRAYS = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
DECODING_ERRORS = (  # what Pillow and pydicom raise at damaged files
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, zlib.error, BytesLengthException, InvalidDicomError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning, ImageCms.PyCMSError),
)

PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO = 262, 0  # of TIFF
# Deep grey whose zero is white has the layouts of that whose zero is black, of which Pillow knows more.
for _order, _photometric, *_rest in list(TiffImagePlugin.OPEN_INFO):
    _mode = TiffImagePlugin.OPEN_INFO[_order, _photometric, *_rest]
    if _photometric == 1 and _mode[0].startswith(("I", "F")):
        TiffImagePlugin.OPEN_INFO.setdefault((_order, WHITE_IS_ZERO, *_rest), _mode)
DARK = 48  # levels of 255 that are next to black, or to white
MOSTLY = 0.9
_NOTES = "medv_lab_notes"

SAMPLES = {  # name -> file in the packages pydicom or pydicom-data
    "chest x-ray": "RG1_UNCR.dcm",
    "head ct": "693_UNCR.dcm",
    "shoulder mri": "MR2_UNCR.dcm",
    "spine ct": "CT_small.dcm",
}

Picture = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray


def open_image(source: Picture, *, frame: int = 0) -> Image.Image:
    """Open a picture as 8-bit RGB.

    Args:
        source: a path, the bytes of a file, a Pillow image, or an array (H, W[, 1 | 3 | 4]) of bool, uint8,
            other integers, or floats in 0..1. Integer grey arrays other than uint8 get the percentile window;
            uint16 colour is divided by 257.
        frame: which frame of a multi-frame TIFF, WebP or DICOM, from 0; 0 for everything else.

    Returns:
        A new Pillow image of mode RGB; `notes_of` says what was done to it that its file does not ask for.

    Raises:
        ImageError: the source is missing, empty, a folder, of an unknown type or format, damaged, too large,
            without pixels, holds NaN, or lacks the frame; the message says what is allowed and what to do.
    """
    if isinstance(source, Image.Image):
        name = "the given Pillow image"
    elif isinstance(source, np.ndarray):
        name = f"the given array of shape {source.shape} and type {source.dtype}"
    elif isinstance(source, bytes | bytearray | memoryview):
        name = f"the given data ({len(source)} bytes)"
    else:
        name = f"{source!r:.80}" if not isinstance(source, os.PathLike) else repr(os.fspath(source))
    notes: list[str] = list(notes_of(source)) if isinstance(source, Image.Image) else []
    try:
        image = _open(source, frame, notes)
    except ImageError as error:
        raise ImageError(f"{name} {error}") from error
    except DECODING_ERRORS as error:
        raise ImageError(
            f"{name} cannot be decoded ({type(error).__name__}: {error}). Check that you may read it; if it is "
            "damaged or incomplete, export it again, uncompressed if possible."
        ) from error
    note_few_greys(image, notes)
    image.info = {_NOTES: tuple(dict.fromkeys(notes))}
    return image


def notes_of(image: Image.Image) -> tuple[str, ...]:
    """Return what `open_image` noted of a picture, one sentence each."""
    return image.info.get(_NOTES, ())


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


def _open(source: Picture, frame: int, notes: list[str]) -> Image.Image:
    if isinstance(source, Image.Image | np.ndarray):
        check_frame(frame, 1)  # of a Pillow image the current one
        return _convert(_array_to_image(source, notes) if isinstance(source, np.ndarray) else source, notes)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), frame, notes)
    if not isinstance(source, str | os.PathLike):
        raise ImageError("is not a picture. Give a path, bytes, a Pillow image or a NumPy array.")
    path = Path(source)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise ImageError(f"{found}. Give the path of a local {ALLOWED} file (nothing is downloaded).")
    with path.open("rb") as file:
        return _decode(file, frame, notes)


def _decode(file: io.BufferedIOBase, frame: int, notes: list[str]) -> Image.Image:
    head = file.read(HEAD_LENGTH)
    file.seek(0)
    if not head:
        raise ImageError(f"is empty. Give a {ALLOWED} file.")
    if is_dicom(head):
        return decode_dicom(file, frame, notes)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"is not a readable picture: it starts with {head[:12]!r}. Allowed are {ALLOWED}, recognised by "
            "content; convert the file, or export it again if it should be one of them."
        ) from error
    with image:
        check_size(*image.size)
        check_frame(frame, getattr(image, "n_frames", 1))
        image.seek(frame)
        return _convert(image, notes, is_own=True)


def _convert(image: Image.Image, notes: list[str], *, is_own: bool = False) -> Image.Image:
    """Convert the current frame of a Pillow image to 8-bit RGB, upright; one that is our own may be changed."""
    check_size(*image.size)
    profile, is_inverted = image.info.get("icc_profile"), _has_white_zero(image)
    upright = image if is_own else ImageOps.exif_transpose(image)
    if is_own:  # without the copy, which of a large picture is 256 MB
        ImageOps.exif_transpose(image, in_place=True)
    if upright.mode.startswith(("I", "F")):
        values, clear = np.asarray(upright), image.info.get("transparency")
        padding = values == clear if isinstance(clear, int) else None
        grey = window_grey(values, notes, padding)
        if is_inverted:
            grey = 255 - grey  # which Pillow does for 8 bits and fewer only
        return Image.fromarray(grey).convert("RGB")
    if upright.has_transparency_data:
        return _lay_on_ground(upright, profile, notes)
    if upright.mode == "CMYK" and not profile:
        notes.append("The picture's CMYK colours have no profile: they are approximate.")
    return to_srgb(upright, profile, notes).convert("RGB")


def _has_white_zero(image: Image.Image) -> bool:
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO


def _lay_on_ground(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Lay a picture with transparency on black, or on white if nearly all of it would be lost on black."""
    # what each ground would hide: pixels by how much of them is seen
    seen, lost = 0.0, np.zeros(2)
    for _, layer in _layers(image, profile, notes):
        weight = np.asarray(layer.getchannel("A"), np.float32)
        light = np.asarray(layer.convert("RGB").convert("L"), np.float32) * (weight / 255)
        seen += float(weight.sum())
        lost += weight[light < DARK].sum(), weight[light + 255 - weight > 255 - DARK].sum()
    is_white = bool(lost[0] > MOSTLY * seen and lost[1] < lost[0])
    if is_white:
        notes.append("The picture is dark on a transparent ground: it was laid on white.")

    laid = Image.new("RGB", image.size)
    for place, layer in _layers(image, profile, []):
        ground = Image.new("RGBA", layer.size, (255,) * 4 if is_white else (0, 0, 0, 255))
        laid.paste(Image.alpha_composite(ground, layer).convert("RGB"), place)
    return laid


def _layers(
    image: Image.Image, profile: bytes | None, notes: list[str]
) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Yield a picture with transparency in sRGB, RGBA, in parts, each with its place; whole, it takes 2.5 GB."""
    for box in boxes(*image.size):
        band = image.crop(box)
        layer = band.convert("RGBA")
        opaque = band.convert("L") if band.mode in ("LA", "La") else layer.convert("RGB")
        colours = to_srgb(opaque, profile, notes).convert("RGBA")
        colours.putalpha(layer.getchannel("A"))
        yield box[:2], colours


def _array_to_image(array: np.ndarray, notes: list[str]) -> Image.Image:
    """Convert an array of any allowed shape and type to 8 bits per channel."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"is not a picture. Allowed shapes are {ARRAYS}, channels last.")
    check_size(array.shape[1], array.shape[0])
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError("holds NaN or infinite values. Replace them with numbers first.")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"runs from {array.min():g} to {array.max():g}. "
                "Floats must lie in 0..1: scale them, or use integers."
            )
        array = stretch(array, 0, 1)
    elif array.dtype == bool:
        array = stretch(array.astype(np.uint8), 0, 1)
    elif array.ndim == 3 and array.dtype == np.uint16:
        array = stretch(array, 0, 65535)
    elif array.ndim == 2 and array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = window_grey(array, notes)
    if array.dtype != np.uint8:
        raise ImageError(
            "has the wrong type. Allowed are bool, uint8, uint16, floats in 0..1, and any integer for grey."
        )
    return Image.fromarray(np.ascontiguousarray(array))
