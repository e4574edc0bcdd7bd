"""Bars are as long as the seconds say."""

import matplotlib.pyplot as plt
import pytest

from medv_lab.views.speed import plot_speed, speed_data

SECONDS = {
    "reference": 0.3,
    "exact": 0.07,
    "floor": 0.06,
    "fast": 0.02,
    "body": 0.04,
    "head": 0.02,
    "sampler": 0.01,
}
RESULT = {"size": "mid", "device_name": "cpu", "seconds_per_step": SECONDS}


def test_the_parts_of_the_exact_step_follow_each_other_and_the_others_are_whole():
    ax = plot_speed(RESULT)
    lengths = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    expected = [(0, 300), (0, 40), (40, 20), (60, 10), (0, 60), (0, 20)]
    for ours, theirs in zip(lengths, expected, strict=True):
        assert ours == pytest.approx(theirs)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["body", "head", "sampler"]
    plt.close("all")


def test_the_table_has_parts_of_the_exact_sampler_only():
    data = speed_data(RESULT)
    assert data.loc["exact", ["step", "body", "head", "sampler"]].tolist() == pytest.approx([70, 40, 20, 10])
    assert data.drop("exact")[["body", "head", "sampler"]].isna().all(axis=None)
