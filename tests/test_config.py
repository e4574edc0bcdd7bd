"""Settings are checked when they are made, and say what is allowed."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from medv_lab.config import PRESETS, DualCache, GenerationSettings, SettingsError, Threshold


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"gen_length": 64, "block_length": 24}, "divides it, near are 8, 16, 32"),
        ({"gen_length": 64, "block_length": 128}, "16, 32, 64"),
        ({"gen_length": 64, "block_length": 32, "steps": 63}, "multiple of 2, near are 62 or 64"),
        ({"gen_length": 64, "block_length": 32, "steps": 1}, "near are 2 or 4"),
        ({"gen_length": 10**18, "block_length": 7}, "near are 4, 5, 8"),
        ({"gen_length": 0}, "1 or larger"),
        ({"steps": -4}, "1 or larger"),
        ({"block_length": 2.0}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"alternatives": 0}, "1 or larger"),
        ({"temperature": float("nan")}, "temperature is nan; give a number, 0 or larger"),
        ({"temperature": float("inf")}, "0 or larger"),
        ({"temperature": -1}, "0 or larger"),
        ({"temperature": 10**400}, "0 or larger"),
        ({"cfg_scale": "high"}, "give a number"),
        ({"cfg_scale": True}, "give a number"),
        ({"remasking": "lowest"}, "low_confidence, random"),
        ({"remasking": np.array(["random"])}, "low_confidence, random"),
        ({"guard": "all"}, "none, penalty, spread"),
        ({"cache": 3}, "none, prefix, dual, image"),
        ({"remasking": "threshold", "guard": DualCache()}, "none, penalty, spread"),
        (
            {"remasking": {"name": "threshold", "threshold": 1.5}},
            "threshold is 1.5; give a number, from 0 to 1",
        ),
        ({"remasking": {"name": "factor", "factor": -1}}, "factor is -1; give a number, 0 or larger"),
        ({"remasking": {"name": "kl_stability", "stable_passes": 1.5}}, "whole number"),
        ({"guard": {"name": "penalty", "spacing": 3}}, "'spacing' is no parameter of the guard 'penalty'"),
        ({"remasking": "wino", "guard": "spread"}, "give 'none', or a strategy that only commits"),
        ({"remasking": "wino", "cache": "dual"}, "give 'none'"),
        ({"noise": "none"}, "masked, reference"),
        ({"stop": "<|eot_id|>"}, "tuple of texts"),
        ({"stop": (1,)}, "tuple of texts"),
        ({"suffix": None}, "give a text"),
        ({"suppressed_tokens": [1]}, "tuple of token ids"),
        ({"suppressed_tokens": (-1,)}, "tuple of token ids"),
        ({"suppressed_tokens": np.array([1, 2])}, "tuple of token ids"),
        ({"suppressed_tokens": "all"}, "give 'reference'"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": 2**64}, "from 0 to"),
    ],
    ids=str,
)
def test_impossible_settings_say_what_is_allowed(values, says):
    with pytest.raises(SettingsError, match=says):
        GenerationSettings(**values)


def test_varied_settings_are_checked_again_and_none_can_be_changed_in_place():
    settings = GenerationSettings()
    with pytest.raises(ValueError, match="block_length"):
        replace(settings, block_length=5)
    with pytest.raises(FrozenInstanceError):
        settings.steps = 3


def test_unknown_settings_are_an_error_with_a_suggestion():
    with pytest.raises(SettingsError, match="did you mean gen_length.*block_length"):
        GenerationSettings.from_dict({"gen_lenght": 64})
    with pytest.raises(SettingsError, match="allowed are gen_length"):
        GenerationSettings.from_dict({3: 64})
    with pytest.raises(SettingsError, match="give a mapping"):
        GenerationSettings.from_dict([("gen_length", 64)])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_manifest(name):
    assert GenerationSettings.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


def test_the_paper_s_symbols_name_the_lengths():
    settings = GenerationSettings(gen_length=96, block_length=32, steps=48)
    assert (settings.L, settings.B, settings.Z) == (96, 32, 48)
    assert (settings.num_blocks, settings.steps_per_block) == (3, 16)


def test_more_steps_than_positions_are_allowed():
    assert GenerationSettings(gen_length=8, block_length=8, steps=12).steps_per_block == 12


def test_a_name_is_shorthand_for_the_object_with_its_defaults():
    settings = GenerationSettings(remasking="threshold", cache="dual")
    assert settings == GenerationSettings(remasking=Threshold(0.9), cache=DualCache())
    assert settings.remasking.threshold == 0.9
    assert settings.to_dict()["remasking"] == {"name": "threshold", "threshold": 0.9}
    assert hash(settings) == hash(GenerationSettings.from_dict(settings.to_dict()))
