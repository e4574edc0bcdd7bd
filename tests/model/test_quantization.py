"""Weights in 8 and 4 bits: answers about pictures, saving and loading bit for bit, adapters on top, drift."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

import medv_lab
from medv_lab.config import GenerationSettings
from medv_lab.model.checkpoint_files import CheckpointError
from medv_lab.model.checkpoints import load
from medv_lab.model.quantization import QUANTIZATIONS, count_bytes, library_of, make_quantization_config
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene, make_scenes
from medv_lab.runtime import make_manifest
from medv_lab.studies.exactness import run_exactness

CPU = torch.device("cpu")
SETTINGS = GenerationSettings(gen_length=16, block_length=16, steps=8)
INSTALL = "pip install 'medv-lab[quantized]'"


@pytest.fixture(scope="module", params=QUANTIZATIONS)
def loaded(request):
    """The embedded model in few bits."""
    pytest.importorskip(library_of(request.param, CPU), reason=INSTALL)
    return request.param, *load(quantization=request.param, device="cpu")


def logits_of(model, processor):
    inputs = processor([render(scene) for scene in make_scenes("test", 2)], ["What is shown?"] * 2)
    with torch.no_grad():
        return model(**inputs).logits.float()


def test_layers_are_held_in_few_bits_and_the_rest_is_not(loaded):
    name, model, _ = loaded
    whole, _ = load(device="cpu", dtype="bfloat16")
    kept = {
        key for key, weight in whole.named_parameters() if key.startswith("model.layers") and weight.ndim == 2
    }
    for key, weight in model.named_parameters():
        assert (type(weight) is not torch.nn.Parameter) == (key in kept), key
    held = make_manifest({}, model=model)["quantization"]
    assert held.startswith(f"{name} by {library_of(name, CPU)} ")
    assert any(held in note for note in model.medv_source.notes)


def test_it_answers_about_pictures_and_is_close_to_bfloat16(loaded):
    name, model, processor = loaded
    answer = medv_lab.ask(
        model, processor, render(make_scene("test", 3)), "What is shown?", SETTINGS, progress=False
    )
    assert answer.text
    assert answer.manifest["quantization"].startswith(name)
    whole = logits_of(*load(device="cpu", dtype="bfloat16"))
    coarse = logits_of(model, processor)
    drift = (coarse - whole).square().mean().sqrt() / whole.std()
    assert 0 < drift < {"int8": 0.1, "int4": 0.5}[name]


def test_saved_after_an_answer_it_is_loaded_bit_for_bit(loaded, tmp_path):
    name, model, processor = loaded
    before = logits_of(model, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert torch.equal(logits_of(model, processor), before)  # saving leaves it as it was
    again, same = load(tmp_path, device="cpu")
    assert torch.equal(logits_of(again, same), before)
    assert again.medv_source.quantization == model.medv_source.quantization
    stored = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    shapes = {key: tuple(weight.shape) for key, weight in load(device="cpu")[0].state_dict().items()}
    assert stored == pytest.approx(count_bytes(shapes, model.dtype.itemsize, name), rel=0.03)
    with pytest.raises(CheckpointError, match="cannot be changed"):
        load(tmp_path, quantization="int4" if name == "int8" else "int8")
    with pytest.raises(CheckpointError, match="cannot be changed"):
        load(tmp_path, dtype="float16")


def test_adapters_learn_on_top_also_after_an_answer(loaded):
    _, model, processor = loaded
    inputs = processor([render(make_scene("test", 0))], ["What is shown?"])
    with torch.no_grad():
        before = model(**inputs).logits
    layers = [f"model.layers.{number}.self_attn.q_proj" for number in range(model.config.num_hidden_layers)]
    adapted = get_peft_model(model, LoraConfig(target_modules=layers, r=4, init_lora_weights=False))
    torch.manual_seed(0)  # of the noise: some labels are masked
    try:
        adapted(**inputs, labels=inputs["input_ids"].clamp(min=-100)).loss.backward()
        gradients = [one.grad for one in adapted.parameters() if one.requires_grad]
        assert len(gradients) == 2 * len(layers)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
    finally:
        adapted.unload()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


def test_drift_from_bfloat16_is_reported(tmp_path):
    for name in QUANTIZATIONS:
        pytest.importorskip(library_of(name, CPU), reason=INSTALL)
    report = run_exactness(*load(device="cpu"), tmp_path, questions=2, quantizations=QUANTIZATIONS)
    drift = report.groupby("comparison").largest_drift.max()
    assert [title.split()[1] for title in drift.index] == ["int4", "int8"]
    assert drift.iloc[0] > drift.iloc[1] > 0
    assert json.loads((tmp_path / "manifest.json").read_text())["settings"]["quantizations"] == list(
        QUANTIZATIONS
    )


def test_what_is_not_there_is_said(monkeypatch):
    with pytest.raises(ValueError, match="allowed are int8, int4"):
        make_quantization_config("int2", CPU, torch.bfloat16)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"torchao is not installed; pip install 'medv-lab\[quantized\]'"):
        make_quantization_config("int8", CPU, torch.bfloat16)


def test_bytes_are_those_of_weights_and_scales():
    shapes = {"model.layers.0.mlp.up_proj.weight": (12288, 4096), "lm_head.weight": (126464, 4096)}
    whole, eight, four = (count_bytes(shapes, 2, name) for name in (None, "int8", "int4"))
    head, layer = 126464 * 4096 * 2, 12288 * 4096
    assert (whole, eight, four) == (
        head + 2 * layer,
        head + layer + 4 * 12288,
        head + layer // 2 + layer // 16,
    )
