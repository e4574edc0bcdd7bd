"""What the README of `hardware` says of the rehearsed 8B and of sizes is what the result files hold."""

import json
import re
from pathlib import Path

import pytest

from medv_lab.hardware.sizing import plan_evaluation, plan_training
from medv_lab.runtime import format_bytes

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "rehearsal"
README = (ROOT / "medv_lab" / "hardware" / "README.md").read_text()


def row(name: str) -> list[str]:
    """The cells of its row of that name."""
    (line,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", README, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_the_8b_was_rehearsed_in_full_size(precision):
    trial = json.loads((RESULTS / f"8b-{precision}.json").read_text())
    assert trial["parameters"] > 8.4e9 and trial["passes"] == 8
    assert trial["manifest"]["settings"]["cache"]["name"] == "dual"
    assert (trial["manifest"]["quantization"] or "bfloat16").startswith(precision)
    memory = [trial["weights"], trial["load"]["private"], trial["answer"]["private"]]
    times = [trial[part] for part in ("seconds_first_pass", "seconds_later_pass")]
    seconds = [trial["load"]["seconds"], *times, trial["answer"]["seconds"]]
    assert row(precision) == [*map(format_bytes, memory), *(f"{number:.0f}" for number in seconds)]


def test_sizes_are_those_of_the_command():
    evaluation = plan_evaluation(None).set_index("source")
    for name, source in (("published, Table 3", "published"), ("computed", "computed")):
        found = evaluation[evaluation.index.str.startswith(source)].iloc[0]
        assert row(name) == [
            f"{found[column]:.2g}" for column in ("seconds_per_pass", "hours_1", "hours_4", "hours_32")
        ]
    training = plan_training(4).set_index("stage")
    for stage in ("alignment", "instruct", "pathvqa"):
        cells = training.loc[
            stage, ["dialogues", "positions", "gigabytes_ZeRO-3", "gigabytes_FSDP2", "hours"]
        ]
        assert row(stage) == [f"{cell:,.0f}" for cell in cells]
