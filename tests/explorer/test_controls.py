"""The panel never offers what settings refuse, and gives the settings that it shows."""

from dataclasses import asdict

import numpy as np
import pytest

from medv_lab.config import PRESETS, REMASKING, GenerationSettings
from medv_lab.explorer import choices
from medv_lab.explorer.controls import SettingsPanel


def meaning(settings: GenerationSettings) -> dict:
    """All settings, with the defaults of what the strategy reads put in."""
    read = choices.parameters(settings.remasking, settings.repetition_guard)
    return asdict(settings) | {name: settings.parameter(name) for name in read}


def test_it_begins_with_what_it_was_given():
    settings = GenerationSettings(48, 24, 12, 0.3, "threshold", threshold=0.7, seed=5, stop=("x", "y"))
    panel = SettingsPanel(settings)
    assert panel.settings() == settings
    assert SettingsPanel().settings() == GenerationSettings()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_chosen_is_valid(seed):
    random, panel = np.random.default_rng(seed), SettingsPanel()
    for _ in range(40):
        name = random.choice(
            ["gen_length", "block_length", "steps", "remasking", "guard", "cache", "attention"]
        )
        if name == "attention":
            panel.record_attention.value = not panel.record_attention.value
        else:
            control = getattr(panel, name)
            control.value = control.options[random.integers(len(control.options))]
        settings = panel.settings()
        shown = (panel.gen_length.value, panel.block_length.value, panel.steps.value)
        assert shown == (settings.gen_length, settings.block_length, settings.steps)
        assert settings.remasking == panel.remasking.value
        assert settings.cache == "none" or not panel.record_attention.value


@pytest.mark.parametrize("remasking", REMASKING)
def test_parameters_show_where_they_are_read(remasking):
    panel = SettingsPanel()
    panel.remasking.value = remasking
    shown = {name for name, box in panel.parameters.items() if box.layout.display != "none"}
    assert shown == set(REMASKING[remasking])
    for name in shown:
        assert panel.parameters[name].value == REMASKING[remasking][name]
    assert panel.gen_length.layout.display is None  # layouts are not shared


def test_a_changed_parameter_is_in_the_settings_and_another_strategy_forgets_it():
    panel = SettingsPanel()
    panel.remasking.value = "threshold"
    panel.parameters["threshold"].value = 0.55
    assert panel.settings().threshold == 0.55
    panel.remasking.value = "wino"
    assert panel.settings().parameter("threshold") == 0.6
    panel.remasking.value = "low_confidence"
    assert panel.settings() == GenerationSettings()


def test_an_answer_that_grows_starts_no_longer_than_it_may_become():
    panel = SettingsPanel()
    panel.gen_length.value = 512
    panel.remasking.value = "daedal"
    assert (panel.settings().L, panel.settings().B) == (256, 256)
    panel.parameters["max_length"].value = 50
    settings = panel.settings()
    assert (settings.L, settings.B, settings.parameter("max_length")) == (48, 48, 50)
    panel.remasking.value = "low_confidence"
    panel.gen_length.value = 512
    assert panel.settings().L == 512


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_taken_whole(name):
    panel = SettingsPanel(GenerationSettings(8, 8, 8, remasking="wino", seed=3))
    panel.preset.value = PRESETS[name]
    assert meaning(panel.settings()) == meaning(PRESETS[name])
    assert panel.preset.index == 0  # shown as the menu that it is
    assert panel.record_attention.value == (PRESETS[name].cache == "none")


def test_texts_are_read():
    panel = SettingsPanel()
    panel.stop.value, panel.suppressed.value = "", "1, 7"
    panel.record_attention.value = False
    panel.cache.value, panel.cache_refresh.value = "prefix", 3
    settings = panel.settings()
    assert (settings.stop, settings.suppressed_tokens) == ((), (1, 7))
    assert (settings.cache, settings.cache_refresh) == ("prefix", 3)
    panel.suppressed.value = "all"
    with pytest.raises(ValueError, match="give 'reference'"):
        panel.settings()
