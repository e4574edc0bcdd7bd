"""Proposed settings: whole weights where they fit, fewer bits where they do not, and the disk at last."""

import pytest
import torch

from medv_lab.hardware import proposals
from medv_lab.hardware.proposals import propose_settings
from medv_lab.model.checkpoint_files import PARAMETERS_WITH_VISION, CheckpointError
from medv_lab.model.checkpoints import load
from tests.cli.console import fails_in_one_line, succeeds
from tests.model.tiny import save_tiny

GB = 10**9


def machine(memory=0.0, gpus=(), disk=100.0):
    devices = [{"name": "X", "total": gpu * GB, "free": gpu * GB} for gpu in gpus]
    return {"memory_available": memory * GB, "disk_free": disk * GB, "devices": devices}


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch):
    monkeypatch.setattr(proposals.util, "find_spec", lambda name: object())
    monkeypatch.setattr(proposals, "has_bfloat16", lambda device: True)


@pytest.mark.parametrize(
    ("memory", "gpus", "wanted"),
    [
        (64, (80,), {"device": "cuda:0", "dtype": "bfloat16"}),
        (64, (24,), {"device": "cuda:0", "dtype": "bfloat16"}),
        (64, (16,), {"device": "cuda:0", "dtype": "bfloat16", "quantization": "int8"}),
        (64, (10,), {"device": "cuda:0", "dtype": "bfloat16", "quantization": "int4"}),
        (64, (6,), {"dtype": "bfloat16", "offload": "offload"}),
        (24, (), {"device": "cpu", "dtype": "bfloat16"}),
        (16, (), {"device": "cpu", "dtype": "bfloat16", "quantization": "int8"}),
        (10, (), {"device": "cpu", "dtype": "bfloat16", "quantization": "int4"}),
        (4, (), {"dtype": "bfloat16", "offload": "offload"}),
    ],
)
def test_the_8b_is_fitted_to_the_machine(memory, gpus, wanted):
    found = propose_settings("LLaDA-MedV", machine(memory, gpus))
    assert next(one for one in found if one.fits).settings == wanted


def test_needs_are_those_of_the_weights_and_of_a_question():
    found = propose_settings("LLaDA-MedV", machine(64))
    whole = next(one for one in found if one.dtype == "bfloat16" and one.quantization is None)
    assert whole.needs == pytest.approx(2.2 * PARAMETERS_WITH_VISION)
    eight, four = (
        next(one for one in found if one.quantization == name).needs / GB for name in ("int8", "int4")
    )
    assert (eight, four) == pytest.approx((11.6, 8.5), abs=0.1)


def test_a_cpu_without_bfloat16_takes_float32_where_that_fits(monkeypatch):
    monkeypatch.setattr(proposals, "has_bfloat16", lambda device: False)
    found = propose_settings("LLaDA-MedV", machine(64))
    assert next(one for one in found if one.fits).settings == {"device": "cpu", "dtype": "float32"}


def test_what_is_proposed_is_what_load_takes(tmp_path):
    save_tiny(tmp_path)
    best = next(one for one in propose_settings(tmp_path, machine(64)) if one.fits)
    model, _ = load(tmp_path, **best.settings)
    assert model.dtype == torch.bfloat16


def test_the_command_prints_what_it_proposes(tmp_path, monkeypatch):
    save_tiny(tmp_path)
    output = succeeds("doctor", "--model", tmp_path)
    assert f"--model {tmp_path} --device" in output.replace("\n", "")
    monkeypatch.setattr(proposals.util, "find_spec", lambda name: None)
    assert "install torchao" in succeeds("doctor", "--model", "LLaDA-MedV")
    assert "neither a folder here nor a hub id" in fails_in_one_line("doctor", "--model", "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="settings are proposed for"):
        propose_settings(tmp_path)
