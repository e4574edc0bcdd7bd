"""Depth, size, kind and expansion are looked at before anything is parsed; what is within limits is read as it is."""

import io
import json
import os
import random
import zipfile

import ijson
import numpy as np
import pytest

from medv_lab import limits
from medv_lab.limits import (
    LIBRARY_ERRORS,
    MAX_DEPTH,
    DepthGuard,
    LimitError,
    open_file,
    parse_json,
    read_arrays,
    read_file,
)


def depth(value) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth, parts), default=0)


def draw(rng: random.Random, deepest: int):
    """A JSON value whose texts hold what could be taken for brackets and quotes."""
    kind, text = rng.random(), "".join(rng.choices('a"\\[]{}é\n', k=4))
    if deepest and kind < 0.5:
        return [draw(rng, deepest - 1) for _ in range(rng.randint(0, 3))]
    if deepest and kind < 0.8:
        return {text + str(n): draw(rng, deepest - 1) for n in range(rng.randint(0, 3))}
    return text


def test_the_depth_is_that_of_the_value_however_it_is_cut(monkeypatch):
    rng = random.Random(0)
    for _ in range(300):
        value = draw(rng, 6)
        content, deepest = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(), depth(value)
        for allowed in (deepest, deepest - 1):
            monkeypatch.setattr(limits, "MAX_DEPTH", allowed)
            guard, start, is_refused = DepthGuard(), 0, False
            try:
                while start < len(content):
                    size = rng.randint(1, 9)
                    guard.feed(content[start : start + size])
                    start += size
            except LimitError:
                is_refused = True
            assert is_refused == (allowed < deepest), content


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":', '"\\"",[', '[ "]" ,'])
def test_nesting_is_refused_and_not_parsed(opening):
    within = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert depth(parse_json(within)) == MAX_DEPTH
    for content in (f"[{within}]", opening * 100_000):
        for given in (content, content.encode()):
            with pytest.raises(LimitError, match="nested more than|no JSON|Extra data"):
                parse_json(given)
        with pytest.raises(LimitError):
            list(ijson.items(DepthGuard(io.BytesIO(content.encode())), "item"))


def test_brackets_in_texts_and_half_characters_are_no_depth():
    text = "[" * 1000 + '"\\' + "{" * 1000
    assert parse_json(json.dumps([text])) == [text]
    assert parse_json('"\\ud800"') == "\ud800"
    with pytest.raises(LimitError, match="64000000 are the most"):
        parse_json(b" " * (limits.MAX_JSON + 1))


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "file") == read_file(tmp_path / "link", 3) == b"abc"
    with pytest.raises(LimitError, match="3 bytes; 2 are"):
        read_file(tmp_path / "file", 2)
    for name, kind in (("pipe", "a pipe"), (".", "folder"), ("/dev/zero", "device")):
        with pytest.raises(LimitError, match=kind):
            open_file(tmp_path / name)
    for name in ("absent", "loop"):
        with pytest.raises(OSError, match=name):
            open_file(tmp_path / name)


def pack(**members: bytes) -> zipfile.ZipFile:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return zipfile.ZipFile(file)


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def header(descr: str, shape: str) -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"


def test_arrays_are_read_as_they_were_written():
    file = io.BytesIO()
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array("text"), "c": np.zeros((0, 5), np.float16)}
    np.savez_compressed(file, **arrays)
    found = read_arrays(zipfile.ZipFile(file), ["a", "b", "c"])
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype
        for name, array in arrays.items()
    )


@pytest.mark.parametrize(
    "content",
    [
        npy(header("<f8", "(10000000000,)")),
        npy(header("<f8", "(2,)"), bytes(24)),
        npy(header("<U0", "(10000000000,)")),
        npy(header("|S0", "(10000000000,)")),
        npy(header("|V0", "(10000000000,)")),
        npy(header("|O", "(1,)"), b"cos\nsystem\n(S'echo'\ntR."),
        npy(header("<f8", "(-1,)"), bytes(8)),
        npy(header("<U5000000", "()"), bytes(20_000_000)),
        npy("(" * 110),
        npy("-" * 110 + "1"),
        b"\x93NUMPY\x03\x00" + bytes(100),
        b"",
    ],
)
def test_headers_that_are_not_believed(content):
    with pytest.raises(LIBRARY_ERRORS):
        read_arrays(pack(a=content), ["a"])


def test_what_expands_without_end_is_not_unpacked():
    archive = pack(
        a=npy(header("|u1", "(200000000,)"), bytes(200_000_000)),
        b=npy(header("|u1", "(60000000,)"), bytes(60_000_000)),
    )
    with pytest.raises(LimitError, match="256000000 are the most"):
        read_arrays(archive, ["a", "b"])
    assert len(read_arrays(archive, ["b"])["b"]) == 60_000_000
