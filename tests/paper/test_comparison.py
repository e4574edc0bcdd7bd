"""Published tables with measured rows: nothing published changes, and what is measured says from where."""

import json
import math

import pandas as pd
import pytest

from medv_lab.metrics.scoring import SAYS_BOTH_NAME
from medv_lab.paper import measured
from medv_lab.paper.comparison import (
    ARM_OF_ROW,
    DIFFERENCES_OF_TABLE_4,
    PAPER_TABLES,
    compare_with_published,
    judge,
    state_agreement,
)
from medv_lab.paper.published import TABLES, load_table
from medv_lab.paper.typeset import MISSING_MARK
from medv_lab.phantoms.reports import CONTROLS
from tests.paper.results_folder import (
    write,
    write_ablations,
    write_study,
    write_table1,
    write_table2,
    write_table3,
)

BY_NUMBER = dict(zip(TABLES, PAPER_TABLES, strict=True))


def own_rows(number, results) -> pd.DataFrame:
    data = BY_NUMBER[number].collect(results)
    return data[~data.source.str.startswith("published")].reset_index(drop=True)


@pytest.mark.parametrize("number", BY_NUMBER)
def test_the_published_rows_are_the_paper_s_whether_or_not_something_is_measured(number, tmp_path):
    table = load_table(number)
    for is_filled in (False, True):
        if is_filled:
            write_table1(tmp_path), write_table2(tmp_path), write_table3(tmp_path), write_ablations(tmp_path)
            write_study(tmp_path, "steps", {"a": ("Z", (8, 4, 4))})
            write(tmp_path / "table8" / "counts.csv", [dict(load_table(8).iloc[1])])
        data = BY_NUMBER[number].collect(tmp_path)
        is_published = data.source.str.startswith("published")
        shown = data.loc[is_published, list(table)].reset_index(drop=True)
        pd.testing.assert_frame_equal(shown, table, check_dtype=False)
        assert is_published.all() == (not is_filled and number != 6)


def test_missing_measurements_are_said_in_print(tmp_path):
    markdown, latex = BY_NUMBER[4].draw(BY_NUMBER[4].collect(tmp_path), tmp_path)
    assert "no measured rows" in markdown and "no measured rows" in latex
    assert MISSING_MARK in markdown


def test_table_1_takes_the_judge_that_knows_the_facts(tmp_path):
    scores = write_table1(tmp_path)
    rows = own_rows(1, tmp_path).set_index("model")
    facts = scores[scores.judge == "phantom facts"].set_index(["system", "group"])
    for system in ("diffusion", "twin"):
        for group, column in measured.GROUPS.items():
            for ending, field in (("", "estimate"), ("_low", "low"), ("_high", "high")):
                assert rows.loc[system, column + ending] == facts.loc[(system, group), field]


@pytest.mark.parametrize(
    ("number", "name", "score"),
    [(1, "model", "description"), (3, "model", "description"), (5, "varied", "fact_score")],
)
def test_controls_of_descriptions_stand_last_and_are_ranked_with_nobody(number, name, score, tmp_path):
    write_table1(tmp_path), write_table3(tmp_path), write_study(tmp_path, "steps", {"a": ("Z", (8, 4, 4))})
    rows = own_rows(number, tmp_path)
    last = rows.iloc[-len(CONTROLS) :]
    assert tuple(last[name]) == CONTROLS
    assert last.source.str.startswith("control ").all()
    assert rows.source.iloc[: -len(CONTROLS)].str.startswith("measured ").all()
    values = last.drop(columns=[name, "source"]).dropna(axis=1)
    assert set(values) == {score, f"{score}_low", f"{score}_high"}
    markdown, _ = BY_NUMBER[number].draw(BY_NUMBER[number].collect(tmp_path), tmp_path)
    controls = [line for line in markdown.splitlines() if line.startswith("| control")]
    assert len(controls) == len(CONTROLS) and not any("**" in line for line in controls)


def test_table_2_has_columns_of_its_own_for_phantoms(tmp_path):
    write_table2(tmp_path)
    (row,) = own_rows(2, tmp_path).to_dict("records")
    assert (row["radiology_open"], row["tissue_closed"], row["compositional_closed_high"]) == (20, 21, 24)
    assert pd.isna(row["vqa_rad_open"])


def test_table_2_has_a_strict_row_below_each_system_and_its_control_last(tmp_path):
    scores = write_table2(tmp_path)
    strict = scores[scores.kind == "closed"].assign(kind="closed, strict", estimate=7.0)
    control = pd.concat([scores, strict]).assign(system=SAYS_BOTH_NAME, low=0.0)
    write(tmp_path / "table2" / "scores.csv", pd.concat([scores, strict, control]).to_dict("records"))
    rows = own_rows(2, tmp_path)
    names = ["diffusion", SAYS_BOTH_NAME]
    assert rows.model.tolist() == [name + ending for name in names for ending in ("", ", strict")]
    assert (
        rows.radiology_closed.tolist() == [20, 7, 20, 7]
        and rows.radiology_open.isna().tolist() == [False, True] * 2
    )
    assert rows.source.str.startswith("control").tolist() == [False, False, True, True]


def test_table_3_names_steps_and_keeps_what_has_none(tmp_path):
    write_table3(tmp_path)
    rows = own_rows(3, tmp_path).set_index("model").drop(list(CONTROLS))
    assert rows.sampling_steps.tolist() == [96, 6, pd.NA]
    assert rows.loc["diffusion-6", "words_per_question"] == 7 and rows.loc["twin", "overall"] == 4


def test_table_4_tells_arms_equal_in_steps_from_those_equal_in_compute(tmp_path):
    write_ablations(tmp_path)
    rows = own_rows(4, tmp_path)
    assert rows.model.tolist() == ["V1 (equal steps)", "V1 (equal compute)", "V2 (equal steps)"]
    assert rows.facts.tolist() == rows.seeds.tolist() == [5, 5, 5]


def test_table_5_reads_lengths_from_the_manifest(tmp_path):
    arms = {"x": ("Z", (128, 32, 16)), "y": ("B", (128, 16, 32)), "z": ("L", (32, 32, 32))}
    write_study(tmp_path, "steps", arms)
    rows = own_rows(5, tmp_path).iloc[: -len(CONTROLS)]
    assert rows[["group", "varied", "L", "B", "Z", "steps_per_block"]].to_numpy().tolist() == [
        ["A", "L", 32, 32, 32, 32],
        ["B", "Z", 128, 32, 16, 4],
        ["C", "B", 128, 16, 32, 4],
    ]
    assert rows.fact_score.tolist() == [0.52, 0.5, 0.51]


def test_table_6_shows_what_made_the_checkpoint(tmp_path):
    manifest = json.loads((measured.files("medv_lab") / measured.RECIPES).read_text())
    rows = own_rows(6, tmp_path).set_index("setting")
    for column, stage in (("alignment", "alignment"), ("md_sft", "instruct")):
        assert rows.loc["global_batch_size", column] == str(manifest["settings"][stage]["batch_size"])


def test_table_8_sets_each_count_behind_the_published_row(tmp_path):
    counted = load_table(8).iloc[[4, 1]]
    write(tmp_path / "table8" / "counts.csv", counted.to_dict("records"))
    data = BY_NUMBER[8].collect(tmp_path)
    rows = data.index[data.source.str.startswith("measured")].tolist()
    assert rows == [2, 6]
    for row in rows:
        assert data.loc[row].drop("source").tolist() == data.loc[row - 1].drop("source").tolist()


@pytest.mark.parametrize(
    ("published", "low", "high", "verdict"),
    [
        (7.9, 1, 3, "agrees"),
        (7.9, -3, -1, "disagrees"),
        (7.9, -1, 3, "undecided"),
        (-21.5, -9, -2, "agrees"),
        (-0.1, -1, 2, "agrees"),
        (-0.1, 1, 2, "disagrees"),
        (7.9, math.nan, math.nan, "undecided"),
        (-0.1, math.nan, math.nan, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_interval(published, low, high, verdict):
    assert judge(published, low, high) == verdict


def test_differences_stand_beside_the_published_ones():
    assert set(load_table(4).model) == set(ARM_OF_ROW)
    rows = [
        (ARM_OF_ROW[a], ARM_OF_ROW[b], "steps", "facts", -5.0, -6.0, -4.0)
        for a, b in DIFFERENCES_OF_TABLE_4[1:]
    ]
    rows += [("V1", "ours", "compute", "open", 1.0, 0.5, 1.5)]
    differences = pd.DataFrame(rows, columns=["arm", "base", "equal", "score", "mean", "low", "high"])
    found = compare_with_published(differences, "facts").set_index("difference")
    assert list(found.index) == ["V1 - ours", "V2 - ours", "V2 - V1"]
    assert found.published["V1 - ours"] == pytest.approx(31.123 - 52.605)
    assert found.verdict.tolist() == ["agrees", "agrees", "disagrees"]


def test_what_is_said_of_the_agreement_follows_from_the_intervals():
    columns = ["arm", "base", "equal", "score", "mean", "low", "high"]
    twin = [("twin", "ours", equal, "open", -5.0, -6.0, -4.0) for equal in ("steps", "compute")]
    twin += [
        ("twin", "ours", "steps", "facts", 5.0, 4.0, 6.0),
        ("twin", "ours", "steps", "closed", 0.0, -1, 1),
    ]
    v1 = [("V1", "ours", "steps", "facts", -5.0, math.nan, math.nan)]
    few = [("twin-few", "ours-few", "steps", "facts", -5.0, -6.0, -4.0)]
    few += [("twin-few", "ours-few", "steps", "open", -5.0, -9.0, -1.0)]
    lines = state_agreement(pd.DataFrame([*twin, *v1], columns=columns))
    assert lines == [
        "Of 5 comparisons with Table 4, 2 agree, 1 disagree and 2 are undecided:",
        "- twin - ours (published -7.9): agrees: open (equal steps), open (equal compute); "
        "undecided: closed (equal steps); disagrees: facts (equal steps).",
        "- V1 - ours (published -21.5): undecided: facts (equal steps).",
        "- twin against ours, plenty of pictures: ours ahead: open; twin ahead: facts; undecided: closed.",
    ]
    assert state_agreement(pd.DataFrame([*twin, *v1, *few], columns=columns))[4:] == [
        "- twin-few against ours-few, few pictures: ours-few ahead in all 2.",
        "- Few pictures turn who is ahead in: facts.",
    ]
