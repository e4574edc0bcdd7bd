"""A model that is spread over memory and disk answers as it does in one place."""

import pytest

import medv_lab
from medv_lab.config import DualCache, GenerationSettings, NoCache
from medv_lab.model.checkpoints import load
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene

ROOM = 6_000_000  # bytes: the embedded model has three times as many


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # a vector that is no module
@pytest.mark.parametrize("cache", [NoCache(), DualCache()], ids=lambda cache: cache.name)
def test_offloaded_layers_give_the_same_tokens(cache, tmp_path, monkeypatch):
    whole, processor = load(device="cpu")
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *_, **__: {"cpu": ROOM})
    spread, _ = load(offload=tmp_path)
    assert set(spread.hf_device_map.values()) == {"cpu", "disk"}
    assert any(tmp_path.iterdir())
    settings = GenerationSettings(gen_length=16, block_length=16, steps=8, cache=cache)
    asked = (processor, render(make_scene("test", 0)), "Describe the image.", settings)
    wanted, answer = (medv_lab.ask(model, *asked, progress=False) for model in (whole, spread))
    commits = [one.trace.to_frame()[["step", "position", "piece"]] for one in (wanted, answer)]
    assert commits[0].equals(commits[1])
    assert answer.text == wanted.text


def test_a_model_is_spread_over_all_devices_or_none(tmp_path):
    with pytest.raises(ValueError, match="over all devices, but device is 'cpu'"):
        load(device="cpu", offload=tmp_path)
