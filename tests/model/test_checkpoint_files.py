"""Tests of what checkpoints need and where they fit (loading tests the files themselves)."""

import pytest

from medv_lab.model import checkpoint_files
from tests.model.tiny import save_tiny, tiny_model


def test_embedded_is_sized_from_its_file_if_it_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint_files, "embedded_folder", lambda: tmp_path / "embedded")
    assert next(checkpoint.name for checkpoint in checkpoint_files.known_checkpoints()) == "LLaDA-MedV"
    save_tiny(tmp_path / "embedded")
    first = checkpoint_files.known_checkpoints()[0]
    assert (first.name, first.licence) == ("embedded", "Apache-2.0")
    assert first.parameters == sum(parameter.numel() for parameter in tiny_model().parameters())


@pytest.mark.parametrize(
    ("gigabytes", "float32", "bfloat16"), [(8, False, False), (24, False, True), (64, True, True)]
)
def test_doctor_says_what_fits(monkeypatch, gigabytes, float32, bfloat16):
    devices = [{"name": "X", "total": 16 * 10**9, "free": 10**9}]
    machine = {"memory_total": gigabytes * 10**9, "devices": devices}
    monkeypatch.setattr(checkpoint_files, "examine_machine", lambda: machine)
    seen = checkpoint_files.doctor()
    medv = next(checkpoint for checkpoint in seen["checkpoints"] if checkpoint["name"] == "LLaDA-MedV")
    assert medv["fits"] == {"cpu float32": float32, "cpu bfloat16": bfloat16, "cuda:0 bfloat16": False}
    assert seen["devices"] == devices
