"""The panel never offers what settings refuse, and gives the settings that it shows."""

from dataclasses import fields

import numpy as np
import pytest

from medv_lab.config import PRESETS, GenerationSettings, LowConfidence, NoCache, PrefixCache, Threshold, Wino
from medv_lab.explorer.controls import START, Recording, SettingsPanel
from medv_lab.strategies.base import Strategy


def test_it_begins_with_what_it_was_given():
    shown = {"temperature": 0.3, "remasking": Threshold(0.7), "seed": 2**40, "stop": ("x", "y")}
    unseen = {"cfg_scale": 0.5, "suffix": "!", "noise": "reference", "alternatives": 2}
    settings = GenerationSettings(48, 24, 12, **shown, **unseen)
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
            control = getattr(control, "names", control)
            control.value = control.options[random.integers(len(control.options))]
        settings = panel.settings()
        shown = (panel.gen_length.value, panel.block_length.value, panel.steps.value)
        assert shown == (settings.gen_length, settings.block_length, settings.steps)
        assert settings.remasking.name == panel.remasking.names.value
        assert isinstance(settings.cache, NoCache) or not panel.record_attention.value


@pytest.mark.parametrize("name", Strategy.known)
def test_the_parameters_of_a_strategy_are_shown_with_their_defaults(name):
    panel = SettingsPanel()
    panel.remasking.names.value = name
    strategy = Strategy.known[name]()
    assert list(panel.remasking.boxes) == [one.name for one in fields(strategy)]
    assert panel.settings().remasking == strategy
    assert panel.gen_length.layout.display is None  # layouts are not shared


def test_a_changed_parameter_is_in_the_settings_and_another_strategy_forgets_it():
    panel = SettingsPanel()
    panel.remasking.names.value = "threshold"
    panel.remasking.boxes["threshold"].value = 0.55
    assert panel.settings().remasking == Threshold(0.55)
    panel.remasking.names.value = "wino"
    assert panel.settings().remasking == Wino()
    panel.remasking.names.value = "low_confidence"
    assert panel.settings() == GenerationSettings()


def test_a_strategy_of_the_user_s_own_is_offered_like_ours(right_first):
    panel = SettingsPanel(GenerationSettings(remasking=right_first(2.0, label="mine")))
    panel.remasking.boxes["weight"].value = 3.0
    assert panel.settings().remasking == right_first(3.0, label="mine")
    panel.remasking.names.value = "low_confidence"
    panel.remasking.names.value = "right_first"
    assert panel.settings().remasking == right_first()


def test_fewer_steps_than_positions_are_the_most_passes_of_an_adaptive_strategy():
    panel = SettingsPanel(GenerationSettings(16, 8, 16, remasking="threshold"))
    assert panel.settings().max_passes is None
    panel.steps.value = 4
    assert panel.settings().max_passes == 4
    panel.take(GenerationSettings(16, 8, 16, remasking="threshold", max_passes=8))
    assert panel.steps.value == panel.settings().max_passes == 8
    panel.remasking.take(LowConfidence())
    assert panel.settings().max_passes is None and panel.settings().steps == 8


def test_an_answer_that_grows_starts_no_longer_than_it_may_become():
    panel = SettingsPanel()
    panel.gen_length.value = 512
    panel.remasking.names.value = "daedal"
    assert (panel.settings().L, panel.settings().B) == (256, 256)
    panel.remasking.boxes["max_length"].value = 50
    settings = panel.settings()
    assert (settings.L, settings.B, settings.remasking.max_length) == (48, 48, 50)
    panel.remasking.names.value = "low_confidence"
    panel.gen_length.value = 512
    assert panel.settings().L == 512


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_taken_whole(name):
    panel = SettingsPanel(GenerationSettings(8, 8, 8, remasking="wino", seed=3))
    panel.preset.value = PRESETS[name]
    assert panel.settings() == PRESETS[name]
    assert panel.preset.index == 0  # shown as the menu that it is
    assert panel.record_attention.value == isinstance(PRESETS[name].cache, NoCache)


def test_texts_are_read():
    panel = SettingsPanel()
    panel.stop.value, panel.suppressed.value = "", "1, 7"
    panel.record_attention.value = False
    panel.cache.names.value = "prefix"
    panel.cache.boxes["refresh"].value = 3
    settings = panel.settings()
    assert (settings.stop, settings.suppressed_tokens) == ((), (1, 7))
    assert settings.cache == PrefixCache(3)
    panel.cache.boxes["refresh"].value = 0
    assert panel.settings().cache == PrefixCache()
    panel.suppressed.value = "all"
    with pytest.raises(ValueError, match="give 'reference'"):
        panel.settings()


def test_every_change_is_told_once_all_settings_fit_together():
    told = []
    panel = SettingsPanel(on_change=lambda: told.append(panel.settings()))
    assert told == []
    panel.gen_length.value = 48
    assert [(one.L, one.B, one.Z) for one in told] == [(48, 24, 48)]
    panel.block_length.value = 12
    panel.steps.value = 4
    panel.temperature.value = 0.5
    panel.remasking.names.value = "threshold"
    panel.remasking.boxes["threshold"].value = 0.5
    panel.record_attention.value = False
    panel.cache.names.value = "dual"
    panel.record_distributions.value = False
    panel.seed.value = 3
    panel.stop.value = "x"
    panel.suppressed.value = ""
    assert len(told) == 12
    assert panel.recording.options == {}
    assert told[-1] == panel.settings()
    panel.preset.value = PRESETS["fast"]
    assert told[12:] == [PRESETS["fast"]]
    panel.take(START, Recording(attention=True, distributions=True))
    assert panel.recording.options == {"record_attention": True, "record_hidden": [-1]}
