"""Settings are checked when they are made, and say what is allowed."""

import json
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest

from medv_lab.config import (
    PARAMETERS,
    PRESETS,
    REMASKING,
    REPETITION_GUARDS,
    GenerationSettings,
    SettingsError,
)


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
        ({"repetition_guard": "all"}, "none, penalty, one_of_run, spread"),
        (
            {"threshold": 0.9},
            "does not read it; leave it out, or choose 'threshold' or 'kl_stability' or 'wino'",
        ),
        ({"spacing": 3, "repetition_guard": "penalty"}, "choose 'spread'"),
        ({"remasking": "threshold", "threshold": 1.5}, "threshold is 1.5; give a number, from 0 to 1"),
        ({"remasking": "factor", "factor": -1}, "factor is -1; give a number, 0 or larger"),
        ({"remasking": "kl_stability", "stable_passes": 1.5}, "whole number"),
        (
            {"remasking": "wino", "repetition_guard": "spread"},
            "give 'none', or a strategy that only commits",
        ),
        ({"noise": "none"}, "masked, reference"),
        ({"stop": "<|eot_id|>"}, "tuple of texts"),
        ({"stop": (1,)}, "tuple of texts"),
        ({"suffix": None}, "give a text"),
        ({"suppressed_tokens": [1]}, "tuple of token ids"),
        ({"suppressed_tokens": (-1,)}, "tuple of token ids"),
        ({"suppressed_tokens": np.array([1, 2])}, "tuple of token ids"),
        ({"suppressed_tokens": "all"}, "give 'reference'"),
        ({"seed": -1}, "0 or larger"),
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
    assert GenerationSettings.from_dict(json.loads(json.dumps(asdict(PRESETS[name])))) == PRESETS[name]


def test_the_paper_s_symbols_name_the_lengths():
    settings = GenerationSettings(gen_length=96, block_length=32, steps=48)
    assert (settings.L, settings.B, settings.Z) == (96, 32, 48)
    assert (settings.num_blocks, settings.steps_per_block) == (3, 16)


def test_more_steps_than_positions_are_allowed():
    assert GenerationSettings(gen_length=8, block_length=8, steps=12).steps_per_block == 12


def test_a_parameter_is_as_set_or_the_default_of_the_strategy_that_reads_it():
    assert GenerationSettings(remasking="wino").parameter("threshold") == 0.6
    assert GenerationSettings(remasking="threshold").parameter("threshold") == 0.9
    assert GenerationSettings(remasking="threshold", threshold=0.5).parameter("threshold") == 0.5
    assert GenerationSettings(remasking="factor", repetition_guard="spread").parameter("spacing") == 4
    with pytest.raises(KeyError):
        GenerationSettings().parameter("threshold")


def test_every_default_is_one_that_could_be_set():
    for name, parameters in REMASKING.items():
        assert GenerationSettings(remasking=name, block_length=64, **parameters)
    for name, parameters in REPETITION_GUARDS.items():
        assert GenerationSettings(repetition_guard=name, **parameters)
    read = {name for table in (REMASKING, REPETITION_GUARDS) for values in table.values() for name in values}
    assert read == set(PARAMETERS)
