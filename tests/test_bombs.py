"""A file of at most 10 MB is read, or refused by name, within 10 seconds and 1 GB, whoever made it."""

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from medv_lab.model.checkpoint_files import embedded_folder
from tests.data.test_dicom import make

ROOT = Path(__file__).parents[1]
MOST_BYTES, MOST_MEMORY, MOST_SECONDS = 10_000_000, 1_000_000_000, 10

# What a reader is called with is the path; how long it took, what it took and what it said is printed.
READER = """
import json, resource, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
{imports}
began = time.process_time()
try:
    said = {call}
    said = "read"
except ValueError as error:
    said = f"{{type(error).__name__}}: {{error}}"
seconds = time.process_time() - began
status = Path("/proc/self/status")  # what getrusage says is of the process that started this one, too
if status.is_file():
    memory = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
else:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([said[:300], seconds, memory]))
"""
READERS = {
    "rows": ("from medv_lab.data.rows import read_rows", "sum(1 for _ in read_rows(Path(sys.argv[1])))"),
    "trace": ("from medv_lab.diffusion.trace import SampleTrace", "SampleTrace.load(sys.argv[1]).text"),
    "journal": ("from medv_lab.store import Store", "Store(Path(sys.argv[1]).parent)"),
    "answers": ("from medv_lab.store import read_lines", "read_lines(Path(sys.argv[1]))"),
    "manifest": ("from medv_lab.records import read_manifest", "read_manifest(Path(sys.argv[1]).parent)"),
    "checkpoint": (
        "from medv_lab.model.checkpoints import load",
        "load(Path(sys.argv[1]).parent, device='cpu')",
    ),
    "picture": ("from medv_lab.data.images import open_image", "open_image(sys.argv[1])"),
    "table": (
        "from medv_lab.data.hugging_face import _batches",
        "sum(map(len, _batches(Path(sys.argv[1]))))",
    ),
}


def read(reader: str, path: Path) -> str:
    """Read a file in a process of its own, hold it to the limits, and return what was said."""
    imports, call = READERS[reader]
    code = READER.format(imports=imports, call=call)
    assert path.stat().st_size <= MOST_BYTES
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, seconds, memory = json.loads(done.stdout.splitlines()[-1])
    assert seconds < MOST_SECONDS and memory < MOST_MEMORY, (said, seconds, memory)
    return said


def full(part: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    """As often a part as fits between head and tail."""
    return head + part * ((MOST_BYTES - len(head) - len(tail)) // len(part)) + tail


JSON = {  # of what a reader could choke on, and whether it is to be refused
    "deep list": (full(b"["), True),
    "deep objects": (full(b'{"a":'), True),
    "deep in a row": (b'[{"id": 1}, ' + full(b"[")[:-20], True),
    "wide": (full(b"[],", b"[", b"[]]"), False),
    "objects": (full(b'{"":0},', b"[", b"{}]"), False),
    "digits": (full(b"9", b"[", b"]"), True),
    "text": (full(b"x", b'["', b'"]'), False),
    "escapes": (full(b"\\u0000", b'["', b'"]'), False),
}


@pytest.mark.parametrize("name", JSON)
def test_json_lists(tmp_path, name):
    content, _ = JSON[name]
    (tmp_path / "data.json").write_bytes(content)
    assert read("rows", tmp_path / "data.json") == "read"  # broken rows are told among the rows


@pytest.mark.parametrize("reader", ["rows", "journal", "answers", "manifest"])
def test_lines_and_documents(tmp_path, reader):
    names = {"rows": "data.jsonl", "journal": "records-1.jsonl", "manifest": "manifest.json"}
    for name in ("deep objects", "objects"):
        line = b'{"key": "x", "a": ' + JSON[name][0][:-40] + b"}\n"
        path = tmp_path / names.get(reader, "answers.jsonl")
        path.write_bytes(line)
        said = read(reader, path)
        if name == "deep objects" and reader != "rows":
            assert "deep" in said


def npz(path: Path, **arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_traces(tmp_path):
    flat = {"meta": np.array(json.dumps({"format": "medv-lab trace 2"}))}
    assert "most that are read" in read(
        "trace", npz(tmp_path / "a.npz", **flat, step=np.zeros(500_000_000, np.uint8))
    ) or "no item named" in read("trace", tmp_path / "a.npz")
    wide = "[" + "[]," * 3_000_000 + "[]]"
    assert "trace" in read("trace", npz(tmp_path / "b.npz", meta=np.array(wide)))


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["vision_config"] |= changes.pop("vision", {})
    path.write_text(json.dumps(content | changes))


def link_checkpoint(folder: Path) -> Path:
    folder.mkdir()
    for file in embedded_folder().iterdir():
        if file.suffix in (".json", ".safetensors"):
            (folder / file.name).write_bytes(file.read_bytes()) if file.suffix == ".json" else (
                folder / file.name
            ).symlink_to(file)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**5},
        {"num_hidden_layers": 900},
        {"image_grid_pinpoints": "(1x1),...,(3000x3000)"},
        {"image_grid_pinpoints": [[56_000, 56_000]]},
        {"num_labels": 10**9},
        {"vision": {"num_labels": 10**9}},
        {"vision": {"num_hidden_layers": 10**6}},
    ],
    ids=str,
)
def test_a_configuration_is_not_believed_beyond_its_weights(tmp_path, changes):
    folder = link_checkpoint(tmp_path / "model")
    change_config(folder, **changes)
    assert read("checkpoint", folder / "config.json").startswith("CheckpointError: ")


SIDE = 8000  # whose square is the most pixels that a picture may have


def levels(dtype: str, *channels: int) -> np.ndarray:
    return np.resize(np.arange(997).astype(dtype), (SIDE, SIDE, *channels))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def deflated(pixels: np.ndarray, photometric: str = "MONOCHROME2", **elements) -> bytes:
    return make(pixels, photometric, DeflatedExplicitVRLittleEndian, **elements)


def run_lengths(dtype: str, photometric: str, segments: int) -> bytes:
    segment = b"".join(bytes([129, place % 251]) for place in range(SIDE**2 // 128))
    head = np.zeros(16, "<u4")
    head[: segments + 1] = [segments, *(64 + place * len(segment) for place in range(segments))]
    pixels = np.zeros((1, 1, 3) if photometric == "RGB" else (1, 1), dtype)
    data = encapsulate([head.tobytes() + segment * segments])
    return make(pixels, photometric, RLELossless, Rows=SIDE, Columns=SIDE, PixelData=data)


PICTURES = {
    "RGBA PNG": lambda: saved(Image.new("RGBA", (SIDE, SIDE)), "PNG"),
    "PNG of few rows": lambda: saved(Image.new("RGBA", (SIDE * 500, SIDE // 500)), "PNG"),
    "palette PNG": lambda: saved(Image.new("P", (SIDE, SIDE)), "PNG", transparency=3),
    "16-bit PNG": lambda: saved(Image.fromarray(levels("u2")), "PNG", compress_level=1),
    "float TIFF": lambda: saved(
        Image.fromarray(np.zeros((SIDE, SIDE), "f4")), "TIFF", compression="tiff_deflate"
    ),
    "DICOM": lambda: deflated(levels("u2"), RescaleSlope=1, RescaleIntercept=-1024),
    "DICOM with padding": lambda: deflated(levels("u2"), RescaleSlope=0.37, PixelPaddingValue=0),
    "DICOM of 32 bits": lambda: deflated(levels("i4"), RescaleSlope=0.37),
    "DICOM RGB": lambda: deflated(levels("u1", 3), "RGB"),
    "DICOM RGB of 16 bits": lambda: deflated(levels("u2", 3), "RGB"),
    "DICOM YBR": lambda: deflated(levels("u1", 3), "YBR_FULL"),
    "DICOM of runs": lambda: run_lengths("i2", "MONOCHROME1", 2),
    "DICOM RGB of runs": lambda: run_lengths("u2", "RGB", 6),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_64_megapixels(tmp_path, kind):
    (tmp_path / "picture").write_bytes(PICTURES[kind]())
    assert read("picture", tmp_path / "picture") == "read"


def test_dicom_that_takes_more_is_refused(tmp_path):
    (tmp_path / "picture").write_bytes(deflated(np.zeros((SIDE, SIDE), "u8")))
    assert "inflates to more than" in read("picture", tmp_path / "picture")
    (tmp_path / "picture").write_bytes(run_lengths("u4", "RGB", 1))
    assert "takes 768000000 bytes while it is decompressed" in read("picture", tmp_path / "picture")


@pytest.mark.parametrize("is_deflated", [False, True])
def test_dicom_of_very_many_elements_is_refused(tmp_path, is_deflated):
    syntax = DeflatedExplicitVRLittleEndian if is_deflated else ExplicitVRLittleEndian
    name = syntax.encode() + b"\0" * (len(syntax) % 2)
    head = bytes(128) + b"DICM\x02\x00\x10\x00UI" + len(name).to_bytes(2, "little") + name
    if is_deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        empty = b"\x08\x00\x50\x00SH\x00\x00" * 1_000_000
        body = b"".join(packer.compress(empty) for _ in range(45)) + packer.flush()
    else:
        items = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 1_240_000
        body = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff" + items
    (tmp_path / "picture").write_bytes(head + body)
    assert "more than 500000 elements or items" in read("picture", tmp_path / "picture")


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_arrow_streams(tmp_path, compression):
    size = 9_000_000 if compression is None else 10**8
    batch = pa.record_batch({"a": pa.array([b"\0" * size])})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(tmp_path / "a.arrow", batch.schema, options=options) as stream:
        stream.write_batch(batch)
    said = read("table", tmp_path / "a.arrow")
    assert said == "read" if compression is None else "batches are compressed" in said
