"""Tests of device, dtype, seeds and the run manifest."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import medv_lab
from medv_lab import runtime


def test_importing_the_package_is_quick_and_brings_no_torch():
    start = time.perf_counter()
    code = (
        "import sys, medv_lab, medv_lab.runtime; print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert time.perf_counter() - start < 2


def test_unknown_public_name_says_what_there_is():
    with pytest.raises(AttributeError, match="load"):
        _ = medv_lab.no_such_name


@pytest.mark.parametrize(
    ("count", "device", "dtype", "why"),
    [(0, "cpu", torch.float32, "no CUDA device"), (1, "cuda", torch.bfloat16, "a CUDA device is there")],
)
def test_auto_takes_what_is_there_and_says_so(monkeypatch, count, device, dtype, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    placement = runtime.resolve_device()
    assert (placement.device.type, placement.dtype) == (device, dtype)
    assert (
        f"Running on {device} in {placement.dtype_name} (device auto: {why}; dtype auto" in placement.reason
    )


def test_asking_for_absent_cuda_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="0 CUDA device"):
        runtime.resolve_device("cuda")


@pytest.mark.parametrize(("device", "dtype"), [("tpu", "auto"), ("cuda:x", "auto"), ("cpu", "int8")])
def test_unknown_device_or_dtype_names_the_allowed_ones(device, dtype):
    with pytest.raises(ValueError, match="allowed are"):
        runtime.resolve_device(device, dtype)


@pytest.mark.parametrize(
    ("has_units", "is_allowed", "precision"),
    [(True, True, "bf16"), (False, True, "fp32"), (True, False, "fp32")],
)
def test_auto_precision_is_bfloat16_where_the_cpu_has_units_that_may_be_used(
    monkeypatch, has_units, is_allowed, precision
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_units)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_allowed)
    cpu = torch.device("cpu")
    assert runtime.resolve_precision("auto", cpu) == precision
    assert [runtime.resolve_precision(asked, cpu) for asked in ("bf16", "fp32")] == ["bf16", "fp32"]


@pytest.mark.parametrize(("is_native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_of_a_gpu_counts_no_emulation(monkeypatch, is_native, precision):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or is_native
    )
    assert runtime.resolve_precision("auto", torch.device("cuda")) == precision


def test_a_cpu_that_is_held_to_avx2_trains_in_float32():
    code = (
        "import torch; from medv_lab.runtime import *; print(resolve_precision('auto', torch.device('cpu')))"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["fp32"]


def test_an_unknown_precision_names_the_allowed_ones():
    with pytest.raises(ValueError, match="auto, bf16, fp32"):
        runtime.resolve_precision("fp8", torch.device("cpu"))


def test_torch_dtype_is_taken_as_it_is():
    assert runtime.resolve_device("cpu", torch.bfloat16).dtype_name == "bfloat16"


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDV_HOME", str(tmp_path))
    assert runtime.medv_home() == tmp_path
    monkeypatch.delenv("MEDV_HOME")
    assert runtime.medv_home().name == "medv-lab"


def test_manifest_is_json_and_names_no_folder(tmp_path):
    source = {"name": "tiny", "sha256": "ab", "revision": None, "folder": "elsewhere"}
    made = runtime.make_manifest(
        {"image": tmp_path / "x.png", "steps": 4, "stop": ("a",)}, seed=3, model=source
    )
    assert json.loads(json.dumps(made)) == made
    assert made["settings"] == {"image": "x.png", "steps": 4, "stop": ["a"]}
    assert made["model"] == {"name": "tiny", "sha256": "ab", "revision": None}
    assert made["seed"] == 3
    assert made["versions"]["torch"].startswith("2.")
    assert str(Path.home()) not in json.dumps(made)
    assert str(tmp_path) not in json.dumps(made)


def test_commit_is_unknown_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "medv_lab" / "runtime.py"))
    made = runtime.make_manifest({})
    assert (made["commit"], made["dirty"]) == ("unknown", None)


def test_model_hash_covers_all_shards_in_name_order(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    assert runtime.hash_model(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors"):
        runtime.hash_model(tmp_path / "none")


def test_this_machine_has_memory_and_disk():
    machine = runtime.examine_machine()
    assert machine["memory_total"] >= machine["memory_available"] > 0
    assert runtime.available_memory(torch.device("cpu")) > 0
    assert machine["disk_free"] > 0
    assert machine["versions"]["torch"].startswith("2.")
    assert "Running on" in machine["placement"]


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (1500, "1.5 kB"), (8_400_000, "8.4 MB"), (16_869_674_048, "16.9 GB")]
)
def test_sizes_for_people(count, text):
    assert runtime.format_bytes(count) == text
