"""Loading takes the memory of the weights and little more, in whatever files and dtype they lie."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from medv_lab.hardware.rehearsal import write_rehearsal

SPARE = 120_000_000  # parts that are being read, and what the allocator keeps of them
MEASURE = """
import json, sys
from medv_lab.hardware.trial import PeakMemory
from medv_lab.model.checkpoints import load
load("embedded", device="cpu")  # what is imported on first use is not counted
with PeakMemory() as before:
    pass
with PeakMemory() as peak:
    model, _ = load(sys.argv[1], device="cpu", dtype="bfloat16")
weights = sum(weight.nbytes for weight in model.parameters())
print(json.dumps([weights, peak.resident - before.resident, peak.private - before.private]))
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "small"
    write_rehearsal("small", folder)
    return folder


def join_shards(sharded: Path, folder: Path, as_float32: bool) -> Path:
    """The same checkpoint in a single file."""
    folder.mkdir()
    weights = {}
    for file in sharded.glob("*.safetensors"):
        weights |= load_file(file)
    weights = {name: weight.float() for name, weight in weights.items()} if as_float32 else weights
    save_file(weights, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sharded / name, folder)
    return folder


@pytest.mark.parametrize("layout", ["shards", "single file", "single file in float32"])
def test_no_second_copy_is_ever_whole(layout, sharded, tmp_path):
    folder = sharded
    if layout != "shards":
        folder = join_shards(sharded, tmp_path / "single", as_float32="float32" in layout)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, resident, private = json.loads(done.stdout)
    assert weights > 300_000_000
    assert private <= resident <= 1.1 * weights + SPARE
