"""B has the settings of A until it is changed, and again once they are copied."""

import pytest

from medv_lab.config import GenerationSettings, Threshold
from medv_lab.explorer.sides import BOTH, SidesPanel

START = GenerationSettings(32, 16, 16)


@pytest.fixture
def told():
    return []


@pytest.fixture
def sides(told):
    return SidesPanel(START, told.append)


def settings(sides, side):
    return sides.panels[side].settings()


def test_b_follows_a_in_everything_until_it_is_changed(sides):
    a, b = sides.panels["A"], sides.panels["B"]
    a.gen_length.value = 64
    a.remasking.names.value = "threshold"
    a.remasking.boxes["threshold"].value = 0.5
    a.record_attention.value = a.record_distributions.value = False
    assert settings(sides, "B") == settings(sides, "A")
    assert settings(sides, "B").remasking == Threshold(0.5)
    assert not b.record_attention.value and not b.record_distributions.value
    assert "follows A" in sides._following.value
    b.steps.value = 8
    assert "its own" in sides._following.value
    a.gen_length.value = 96
    assert (settings(sides, "B").L, settings(sides, "B").Z) == (64, 8)
    sides.copy_button.click()
    assert settings(sides, "B") == settings(sides, "A")
    a.seed.value = 7
    assert settings(sides, "B").seed == 7


def test_the_line_says_what_will_be_asked_and_a_wrong_text_is_told(sides, told):
    assert "L 32, B 16, Z 16, defaults" in sides.summary.value and "B:" not in sides.summary.value
    assert told == [START]
    sides.mode.value = BOTH
    sides.panels["B"].temperature.value = 0.7
    assert "A: L 32, B 16, Z 16, defaults<br>B: L 32, B 16, Z 16, temperature 0.7" in sides.summary.value
    sides.panels["A"].suppressed.value = "all"
    assert "give &#x27;reference&#x27;" in sides.summary.value
    assert settings(sides, "B").temperature == 0.7
