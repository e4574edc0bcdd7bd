"""The arms of the studies cover what the sampler offers, under names of their own."""

import pytest

from medv_lab.config import PRESETS
from medv_lab.strategies.base import Cache, Guard, Strategy
from medv_lab.studies.arms import STUDIES, eos_arms, frontier_arms, steps_arms

LENGTH = 96


@pytest.mark.parametrize("name", STUDIES)
def test_names_differ_and_the_baseline_is_among_them(name):
    make_arms, baseline = STUDIES[name]
    names = [arm.name for arm in make_arms()]
    assert len(set(names)) == len(names)
    assert baseline in names


def test_the_frontier_has_every_strategy_guard_and_cache_and_the_fast_preset():
    settings = [arm.settings for arm in frontier_arms()]
    assert {one.remasking.name for one in settings} == set(Strategy.known)
    assert {one.guard.name for one in settings} == set(Guard.known)
    assert {one.cache.name for one in settings} == set(Cache.known)
    assert PRESETS["fast"] in settings


def test_the_steps_study_goes_from_l_to_a_sixteenth_of_it():
    swept = [arm.settings.steps for arm in steps_arms() if arm.group == "Z"]
    assert (max(swept), min(swept)) == (LENGTH, LENGTH // 16)
    assert len({arm.settings.block_length for arm in steps_arms() if arm.group == "B"}) >= 4
    assert len({arm.settings.gen_length for arm in steps_arms() if arm.group == "L"}) >= 3


def test_the_eos_study_varies_suppression_suffix_and_dtype_one_at_a_time():
    arms = {arm.name: arm for arm in eos_arms()}
    plain, free = arms["B=32, ends suppressed"], arms["B=32, ends free"]
    assert (plain.settings.suppressed_tokens, free.settings.suppressed_tokens) == ("reference", ())
    assert arms["B=32, ends suppressed, suffix"].question == plain.question + " Answer concisely in English."
    assert {arm.dtype for arm in arms.values()} == {None, "bfloat16", "float16"}
