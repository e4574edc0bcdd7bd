"""Sizing: products of what is stated; measured seconds come from files."""

import json
from dataclasses import replace

import pytest

from medv_lab.hardware.sizing import Assumptions, plan_evaluation, plan_training
from tests.cli.console import succeeds

ASSUMED = Assumptions(questions=193, settings=7, passes=256)


def test_evaluation_is_questions_times_settings_times_passes(tmp_path):
    machine = {"processor": "X", "threads": 2}
    trial = {"precision": "int4", "machine": machine, "seconds_first_pass": 2.0}
    (tmp_path / "8b-int4.json").write_text(json.dumps(trial))
    (tmp_path / "tiny-int4.json").write_text(json.dumps(trial))
    table = plan_evaluation(tmp_path, (1, 4, 193), ASSUMED).set_index("source")
    assert len(table) == 3
    measured = table.loc["measured: int4, X, 2 threads, every position"]
    assert measured.hours_1 == pytest.approx(193 * 7 * 256 * 2 / 3600)
    assert measured.hours_4 == pytest.approx(49 * 7 * 256 * 2 / 3600)  # one of the four has 49 questions
    assert measured.hours_193 == pytest.approx(7 * 256 * 2 / 3600)
    assert table.loc["published, Table 3"].seconds_per_pass == pytest.approx(38.382 / 256)


def test_training_hours_follow_the_operations_and_memory_the_engines():
    table = plan_training(4, ASSUMED).set_index("stage")
    assert table.dialogues.to_dict()["instruct"] == 4 * 60_000
    alone = plan_training(1, ASSUMED).set_index("stage")
    assert (alone.hours / table.hours).tolist() == pytest.approx([4] * len(table))
    assert (table["gigabytes_ZeRO-3"] < 80).all() and (table["gigabytes_FSDP2"] < 80).all()
    faster = plan_training(4, replace(ASSUMED, peak=2 * ASSUMED.peak)).set_index("stage")
    assert (table.hours / faster.hours).tolist() == pytest.approx([2] * len(table))


def test_the_command_states_its_assumptions_and_saves_both_tables(tmp_path):
    output = succeeds("sizing", "--trials", tmp_path, "--output", tmp_path, "--gpus", "8")
    assert "utilisation 0.4" in output and "hours_8" in output
    assert {file.name for file in tmp_path.iterdir()} == {"evaluation.csv", "training.csv"}
