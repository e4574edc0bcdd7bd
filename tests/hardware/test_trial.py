"""Trials: one answer in each precision, in a process of its own, with its memory and its seconds."""

import json

import numpy as np
import pytest

from medv_lab.hardware.rehearsal import is_rehearsal, write_rehearsal
from medv_lab.hardware.trial import PeakMemory, run_trials


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial") / "tiny"
    write_rehearsal("tiny", folder)
    return folder


def test_a_trial_answers_about_one_tile_and_is_kept(folder, tmp_path):
    (result,) = run_trials(folder, ["bfloat16"], "tiny", tmp_path)
    assert json.loads((tmp_path / "tiny-bfloat16.json").read_text()) == result
    assert result["passes"] == result["manifest"]["settings"]["steps"] == 8
    assert 730 < result["prompt"] < 1000  # a tile, its newline, and the question in its frame
    assert result["weights"] == 2 * result["parameters"]
    assert result["answer"]["resident"] >= result["answer"]["private"] > result["weights"]
    assert result["seconds_first_pass"] > result["seconds_later_pass"] > 0
    assert result["machine"].keys() == {
        "processor",
        "cores",
        "threads",
        "memory",
        "device",
        "bfloat16",
        "busy",
    }
    assert result["manifest"]["model"]["name"] == "tiny"


def test_a_folder_is_known_for_what_it_is(folder, tmp_path):
    assert is_rehearsal(folder, "tiny")
    assert not is_rehearsal(folder, "small")
    assert not is_rehearsal(tmp_path, "tiny")


def test_memory_is_watched_at_its_peak():
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        taken = np.ones(100_000_000, dtype=np.uint8)
    assert peak.private - before.private > 0.9 * taken.nbytes
