"""A study can be killed and goes on, another model answers anew, and the summary follows from the scores."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from medv_lab.cli.main import app
from medv_lab.config import GenerationSettings
from medv_lab.strategies.base import Plan, Strategy, parameter
from medv_lab.studies import sampler_studies as studies
from medv_lab.studies.arms import Arm
from medv_lab.studies.sampler_studies import choose_fast, run_study, summarise_study
from medv_lab.views.study_plots import plot_frontier
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=8, block_length=4, steps=8)
QUICK = GenerationSettings(gen_length=8, block_length=4, steps=2)
ARMS = [
    Arm("exact", "Z", SETTINGS),
    Arm("few", "Z", QUICK),
    Arm("coarse", "dtype", QUICK, dtype="bfloat16"),
    Arm("fast", "fast", SETTINGS, question="What is shown?"),
]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "frontier", (lambda: ARMS, "exact"))
    return lambda folder, seed=0, **more: run_study(
        "frontier", tiny_model(seed), tiny_processor(), folder, questions=5, batch_size=2, **more
    )


def counting(lines):
    return lambda line: lines.append(int(line.split(", ")[-1].split(" ")[0]))


def test_a_killed_study_goes_on_and_answers_nothing_twice(small, tmp_path):
    first, again, after, other = [], [], [], []
    summary = small(tmp_path, log=counting(first))
    before = (tmp_path / "frontier" / "scores.csv").read_text()
    assert first == [5] * 4
    small(tmp_path, log=counting(again))
    assert again == [0] * 4
    assert (tmp_path / "frontier" / "scores.csv").read_text() == before
    (journal,) = tmp_path.glob("rows-*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-7]) + lines[-7][:30])  # the process died while it wrote
    repeated = small(tmp_path, log=counting(after))
    assert repeated.drop(columns="seconds").equals(summary.drop(columns="seconds"))
    assert after == [0, 0, 2, 5]
    small(tmp_path, seed=1, log=counting(other))
    assert other == [5] * 4


def test_two_processes_share_the_scenes_and_the_first_tells(small, tmp_path, monkeypatch):
    alone = small(tmp_path / "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    own: list[int] = []
    assert small(tmp_path / "both", log=counting(own)) is None
    assert own == [2] * len(ARMS)
    assert not (tmp_path / "both" / "frontier").exists()
    monkeypatch.setenv("RANK", "0")
    own.clear()
    summary = small(tmp_path / "both", log=counting(own))
    assert own == [3] * len(ARMS)
    timed = [name for name in summary if name.startswith("seconds")]
    pd.testing.assert_frame_equal(summary.drop(columns=timed), alone.drop(columns=timed))


def test_what_is_written_belongs_together(small, tmp_path):
    summary = small(tmp_path, log=lambda line: None)
    scores = pd.read_csv(tmp_path / "frontier" / "scores.csv")
    written = pd.read_csv(tmp_path / "frontier" / "summary.csv")
    assert summarise_study(scores, "exact").arm.tolist() == summary.arm.tolist() == written.arm.tolist()
    np.testing.assert_allclose(written.passes, summary.passes)
    assert summary.set_index("arm").passes.to_dict() == {"exact": 8, "few": 2, "coarse": 2, "fast": 8}
    for measure in studies.BOUNDED:
        assert (written[f"{measure}_low"] <= written[measure]).all(), measure
    controls = pd.read_csv(tmp_path / "frontier" / "controls.csv").set_index("control")
    assert controls.questions.tolist() == [5] * 3
    assert controls.loc["reference", ["score", "well_formed", "repeated"]].tolist() == [1, 1, 0]
    assert controls.score["word salad"] < 0.1 and controls.well_formed["word salad"] < 0.2
    manifest = json.loads((tmp_path / "frontier" / "manifest.json").read_text())
    assert manifest["settings"]["arms"]["few"]["settings"]["steps"] == 2
    assert manifest["settings"]["questions"] == 5


@pytest.fixture
def left_first():
    """A strategy as a user writes it; its name is forgotten afterwards."""

    @dataclass(frozen=True)
    class LeftFirst(Strategy):
        name = "left_first"
        least: float = parameter(0.0, 0, 1)

        def plan(self, seen):
            return Plan(1000 * (seen.confidence >= self.least) - seen.positions, seen.num_transfer)

    yield LeftFirst
    del Strategy.known["left_first"]


def test_a_strategy_of_a_user_s_own_is_a_point_of_the_frontier(small, left_first, tmp_path):
    mine = Arm("mine Z=2", "mine", replace(QUICK, remasking=left_first()))
    first, again, changed = [], [], []
    summary = small(tmp_path, extra_arms=[mine], log=counting(first))
    assert first == [5] * 5 and summary.arm.tolist()[-1] == "mine Z=2"
    manifest = json.loads((tmp_path / "frontier" / "manifest.json").read_text())
    asked = manifest["settings"]["arms"]["mine Z=2"]["settings"]
    assert asked["remasking"] == {"name": "left_first", "least": 0.0}
    ax = plot_frontier(summary)
    assert "mine Z=2" in {text.get_text() for text in ax.texts}
    assert "mine" in {container.get_label() for container in ax.containers}

    # Rows are kept by name and parameters.
    small(tmp_path, extra_arms=[mine], log=counting(again))
    assert again == [0] * 5
    other = replace(mine, settings=replace(QUICK, remasking=left_first(0.5)))
    small(tmp_path, extra_arms=[other], log=counting(changed))
    assert changed == [0] * 4 + [5]
    with pytest.raises(ValueError, match="'few' is the name of two arms"):
        small(tmp_path, extra_arms=[replace(mine, name="few")])


def table(**scores) -> pd.DataFrame:
    rows = [
        dict.fromkeys(studies.MEASURES, 0.5)
        | {"arm": arm, "group": "Z", "scene": scene, "score": score, "seconds": len(arm)}
        for arm, values in scores.items()
        for scene, score in enumerate(values)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)  # arms and scenes in any order


def test_differences_are_paired_by_scene():
    random = np.random.default_rng(0)
    exact = random.random(200)
    summary = summarise_study(table(exact=exact, less=exact - 0.1, mixed=random.permutation(exact)), "exact")
    (_, same), (_, less), (_, mixed) = summary.set_index("arm").loc[["exact", "less", "mixed"]].iterrows()
    assert [less.difference_low, less.difference_high] == pytest.approx([-0.1, -0.1])
    assert less.share == pytest.approx((exact - 0.1).mean() / exact.mean())
    assert mixed.difference_high - mixed.difference_low > 0.05
    assert same.score_low < same.score < same.score_high


def test_fast_is_chosen_on_one_half_and_reported_on_the_other():
    # the number of letters is the time; what chooses is scenes 0 and 2
    scores = table(exact=[1.0] * 4, ok=[0.99, 0.5, 0.99, 0.6], no=[0.9, 1.0, 0.9, 1.0])
    name, row = choose_fast(scores, "exact", passes=0.5)
    assert (name, row.questions) == ("ok", 2)
    assert row.share == pytest.approx(0.55)
    assert row.share_low <= row.share <= row.share_high
    summary = summarise_study(scores, "exact").set_index("arm").loc["ok"]
    confirmed = summary[["confirmed", "confirmed_low", "confirmed_high"]].tolist()
    assert confirmed == pytest.approx([row.share, row.share_low, row.share_high])
    assert summary.share == pytest.approx(0.77)
    assert choose_fast(scores[scores.arm != "ok"], "exact", passes=0.5)[0] == "exact"
    assert choose_fast(scores, "exact", passes=0.4) is None


def test_wrong_orders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the studies are frontier, steps, eos"):
        run_study("speed", None, None, tmp_path)
    with pytest.raises(ValueError, match="questions is 1"):
        run_study("eos", None, None, tmp_path, questions=1)


def test_the_command_prints_the_table_and_what_the_frontier_says(small, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "medv_lab.model.checkpoints.load", lambda *names, **more: (tiny_model(), tiny_processor())
    )
    small(tmp_path, log=lambda line: None)
    coarse = [Arm(arm.name, "Z", arm.settings) for arm in ARMS[:2]]
    monkeypatch.setitem(studies.STUDIES, "frontier", (lambda: coarse, "exact"))
    done = CliRunner(env={"COLUMNS": "250"}).invoke(
        app, ["study", "frontier", "--questions", "5", "--output", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert "exact: 5 descriptions, 0 of them new" in done.output
    assert "word salad" in done.output
    assert "least time at 98%" in done.output
    assert "97 % of the exact score" in done.output
