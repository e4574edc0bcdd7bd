"""Tests of what a machine has and what checkpoints need."""

import pytest
import torch

from medv_lab.model import memory
from tests.model.tiny import save_tiny, tiny_model


def test_published_sizes_at_both_dtypes():
    table = {checkpoint.name: checkpoint for checkpoint in memory.known_checkpoints()}
    assert {"LLaDA-MedV", "LLaDA-V", "LLaDA-8B-Instruct"} <= set(table)
    medv = table["LLaDA-MedV"]
    assert medv.weight_bytes("bfloat16") == 2 * 8_434_837_024
    assert medv.weight_bytes("float32") == 2 * medv.weight_bytes("bfloat16")
    assert medv.needed_bytes("bfloat16") > medv.weight_bytes("bfloat16")


def test_embedded_is_sized_from_its_file(monkeypatch, tmp_path):
    save_tiny(tmp_path / "embedded")
    monkeypatch.setattr(memory, "embedded_folder", lambda: tmp_path / "embedded")
    first = memory.known_checkpoints()[0]
    assert (first.name, first.licence) == ("embedded", "Apache-2.0")
    assert first.parameters == sum(parameter.numel() for parameter in tiny_model().parameters())


def test_without_an_embedded_checkpoint_the_others_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "embedded_folder", lambda: tmp_path / "none")
    assert next(checkpoint.name for checkpoint in memory.known_checkpoints()) == "LLaDA-MedV"


@pytest.mark.parametrize(
    ("gigabytes", "float32", "bfloat16"), [(8, False, False), (24, False, True), (64, True, True)]
)
def test_doctor_says_what_fits(monkeypatch, gigabytes, float32, bfloat16):
    monkeypatch.setattr(memory, "_main_memory", lambda: (gigabytes * 10**9, 10**9))
    monkeypatch.setattr(memory, "_gpus", lambda: [{"name": "X", "total": 16 * 10**9, "free": 10**9}])
    seen = memory.doctor()
    medv = next(checkpoint for checkpoint in seen["checkpoints"] if checkpoint["name"] == "LLaDA-MedV")
    assert medv["fits"] == {"cpu float32": float32, "cpu bfloat16": bfloat16, "cuda:0 bfloat16": False}
    assert (seen["memory_total"], seen["memory_available"]) == (gigabytes * 10**9, 10**9)
    assert seen["disk_free"] > 0
    assert seen["versions"]["torch"].startswith("2.")
    assert "Running on" in seen["placement"]


def test_memory_without_psutil_comes_from_the_system(monkeypatch):
    with_psutil = memory._main_memory()
    monkeypatch.setattr(memory.util, "find_spec", lambda name: None)
    without = memory._main_memory()
    assert without[0] == pytest.approx(with_psutil[0], rel=0.01)
    assert 0 < without[1] <= without[0]


def test_available_memory_of_the_cpu_is_what_the_system_has_free(monkeypatch):
    monkeypatch.setattr(memory, "_main_memory", lambda: (9, 4))
    assert memory.available_memory(torch.device("cpu")) == 4


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (1500, "1.5 kB"), (8_400_000, "8.4 MB"), (16_869_674_048, "16.9 GB")]
)
def test_sizes_for_people(count, text):
    assert memory.format_bytes(count) == text
