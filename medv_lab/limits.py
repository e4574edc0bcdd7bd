"""Limits on what is read, looked at before anything is parsed or allocated: a small file cannot take a machine.

    open_file, read_file    regular files only: no folder, pipe or device, no link in a loop; of a bounded size
    parse_json, DepthGuard  JSON of bounded depth, whole or as a stream
    read_arrays             arrays of an .npz whose headers and expansion are bounded; nothing is unpickled

Every reader of files and replies comes here. The limits are far above anything that is in use.
"""

import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

MAX_DEPTH = 64  # of JSON; a tokenizer's file has 6
MAX_JSON = 64_000_000  # bytes of a JSON document, which takes up to 30 times as much memory
MAX_EXPANSION = 256_000_000  # bytes of all arrays of an .npz together
MAX_TEXT = 16_000_000  # bytes of a text among them
_PART = 1 << 20  # bytes of a document that are looked at together
_STEPS = np.zeros(256, np.int8)  # what a byte outside of texts adds to the depth
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_KINDS = "fiuU"  # numbers and texts; no array in use has elements of another type
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

LIBRARY_ERRORS = (
    # what libraries raise at files that are damaged or nonsense, besides errors of their own
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError, TokenError, zipfile.BadZipFile, zlib.error),
)


class LimitError(ValueError):
    """A file or reply beyond what is read; the text says what was given and what is allowed."""


@contextmanager
def parsed_by_others(kind: type[ValueError], what: str) -> Iterator[None]:
    """Turn whatever another library raises at a file into one error: of a kind, with what the file is and what it said.

    Everything is caught, since tokenizers raises `Exception` itself; only for code that parses, and runs no model.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:
        raise kind(
            f"{what} ({type(error).__name__}: {str(error)[:500]}); copy or download it again"
        ) from error


def open_file(path: str | Path, most: int | None = None) -> BinaryIO:
    """Open a regular file to read its bytes.

    Args:
        path: of a file, or of a link to one.
        most: bytes that it may have; None for any number.

    Raises:
        LimitError: for anything else than a regular file, or one that is too large.
        OSError: if there is none, or it may not be read.
    """
    # without O_NONBLOCK the opening of a pipe waits for a writer
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    found, fault = os.fstat(descriptor), None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        fault = f"{str(path)!r} is {kind}; give a file"
    elif most is not None and found.st_size > most:
        fault = f"{str(path)!r} has {found.st_size} bytes; {most} are the most that are read"
    if fault is not None:
        os.close(descriptor)
        raise LimitError(fault)
    return os.fdopen(descriptor, "rb")


def read_file(path: str | Path, most: int | None = MAX_JSON) -> bytes:
    """Read a regular file whole; errors are those of `open_file`."""
    with open_file(path, most) as file:
        return file.read()


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON document of bounded size and depth.

    Raises:
        LimitError: beyond `MAX_JSON` or `MAX_DEPTH`.
        ValueError: for what is no JSON, or no UTF-8.
    """
    if len(content) > MAX_JSON:
        raise LimitError(f"the JSON has {len(content)} bytes; {MAX_JSON} are the most that are read")
    raw = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        guard = DepthGuard()
        for start in range(0, len(raw), _PART):
            guard.feed(raw[start : start + _PART])
    return json.loads(content)


class DepthGuard:
    """Follows the depth of JSON through the parts of a stream; as a file, it is one that `ijson` can read from.

    Args:
        file: whose parts `read` hands on.

    Raises from `feed` and `read`:
        LimitError: beyond `MAX_DEPTH`.
    """

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file = file
        self._depth, self._is_in_text, self._rest = 0, False, b""

    def read(self, size: int = -1) -> bytes:
        """Read from the file."""
        part = self._file.read(size)
        self.feed(part)
        return part

    def feed(self, part: bytes) -> None:
        """Look at the next part."""
        # An escaped backslash or quote begins or ends no text; one that is cut in two waits for its other half.
        bare = (self._rest + part).replace(b"\\\\", b"")
        self._rest = b"\\" if bare.endswith(b"\\") else b""
        marks = np.frombuffer(bare.replace(b'\\"', b""), np.uint8)
        is_in_text = (np.cumsum(marks == ord('"'), dtype=np.uint8) & 1).astype(bool) ^ self._is_in_text
        depths = self._depth + np.cumsum(np.where(is_in_text, np.int8(0), _STEPS[marks]), dtype=np.int64)
        if not len(depths):
            return
        if depths.max() > MAX_DEPTH:
            raise LimitError(f"the JSON is nested more than {MAX_DEPTH} deep; write it flatter")
        self._depth, self._is_in_text = int(depths[-1]), bool(is_in_text[-1])


def read_arrays(archive: zipfile.ZipFile, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read arrays of an .npz; each is read to its end, which is what checks its checksum.

    Args:
        archive: opened to read.
        names: of the arrays.

    Raises:
        LimitError: if the arrays would take more than `MAX_EXPANSION`, or one has another size than its header says,
            or elements that are neither numbers nor texts.
        KeyError: for an array that is not there.
        Others of `LIBRARY_ERRORS`: for an archive that is damaged.
    """
    members = {name: archive.getinfo(f"{name}.npy") for name in names}
    expanded = sum(member.file_size for member in members.values())
    if expanded > MAX_EXPANSION:
        raise LimitError(f"its arrays take {expanded} bytes; {MAX_EXPANSION} are the most that are read")
    arrays = {}
    for name, member in members.items():
        with archive.open(member) as stream:
            read_header = _HEADERS.get(npy.read_magic(stream))
            if read_header is None:
                raise LimitError(f"the array {name} is of an unknown version of the .npy format")
            shape, _, dtype = read_header(stream)
            size, follow = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
            is_sound = (
                dtype.kind in _KINDS and dtype.itemsize and min(shape, default=0) >= 0 and size == follow
            )
            if not is_sound or (dtype.kind == "U" and size > MAX_TEXT):
                raise LimitError(
                    f"the header of the array {name} says {dtype} {shape}, and {follow} bytes follow; numbers, or "
                    f"a text of at most {MAX_TEXT} bytes, of just that size are read"
                )
            stream.seek(0)
            arrays[name] = npy.read_array(stream, allow_pickle=False)
            stream.read()
    return arrays
