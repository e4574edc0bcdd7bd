"""Committed results: scores follow from answers, and they hold up what we say of the embedded model."""

import json
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from medv_lab.evaluation.benchmarks import score_phantoms, summarise_descriptions, summarise_phantoms
from medv_lab.metrics.intervals import paired_difference
from medv_lab.model.checkpoint_files import embedded_folder
from medv_lab.paper.comparison import state_agreement
from medv_lab.phantoms.benchmark import make_descriptions, make_questions
from medv_lab.records import read_manifest, read_predictions
from medv_lab.runtime import hash_model
from medv_lab.studies.ablation_grid import compare_arms, read_cells, tabulate
from medv_lab.studies.arms import STUDIES
from medv_lab.studies.sampler_studies import score_controls, summarise_study
from medv_lab.training.pipelines import EQUAL, MAIN

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "phantoms"
ABLATIONS = FOLDER.parent / "ablations"
RUNS = {
    "embedded": ("test", "right"),
    "embedded-shuffled": ("test", "shuffled"),
    "embedded-compositional": ("compositional", "right"),
    "question-only": ("test", "none"),
}
DESCRIBED = {
    "descriptions": ("right", 2000),
    "descriptions-shuffled": ("shuffled", 500),
}  # pictures, how many
SHOWN = {  # measures of descriptions in the model card: their digits
    "facts": 1,
    "well-formed": 1,
    "repeated": 1,
    "contradictions": 1,
    "adjacent duplicates": 2,
    "words": 1,
}
LARGEST_GAP = 5  # points between shuffled pictures and a model that never saw any


def read_run(name: str):
    """Questions, answers, manifest and scores of a committed run."""
    ((run, predictions),) = read_predictions(FOLDER / name).items()
    about = read_manifest(FOLDER / name)[run]
    make = make_descriptions if name in DESCRIBED else make_questions
    return make(**about["asked"]), predictions, about, FOLDER / name / f"scores-{run}.csv"


@cache
def read_descriptions(name: str):
    """As `read_run`; rendering hundreds of pictures takes a while."""
    return read_run(name)


def totals(name: str) -> dict[str, float]:
    table = summarise_phantoms(*read_run(name)[:2])
    return table[table.group == "all"].set_index("kind").score.to_dict()


@pytest.mark.parametrize("name", RUNS)
def test_scores_follow_from_answers_and_answers_from_the_benchmark(name):
    questions, predictions, about, scores = read_run(name)
    table = summarise_phantoms(questions, predictions)
    assert scores.read_text() == table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    assert (about["asked"]["split"], about["asked"]["pictures"]) == RUNS[name]
    assert len(predictions) == about["questions"] >= 500


@pytest.mark.parametrize("name", DESCRIBED)
def test_scores_of_descriptions_follow_from_answers(name):
    questions, predictions, about, scores = read_descriptions(name)
    table = summarise_descriptions(questions, predictions)
    assert scores.read_text() == table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    assert (about["asked"]["pictures"], about["asked"]["descriptions"]) == DESCRIBED[name]
    assert (about["settings"]["gen_length"], about["settings"]["steps"]) == (96, 96)


def test_every_run_of_a_model_has_its_device_and_dtype():
    def manifests(value):
        if isinstance(value, dict) and "versions" in value:
            yield value
        elif isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                yield from manifests(one)

    paths = FOLDER.parent.rglob("*.json")
    found = [one for path in paths for one in manifests(json.loads(path.read_text()))]
    of_models = [one for one in found if one["model"] is not None]
    assert len(of_models) > 50
    assert all(one["device"] and one["dtype"] for one in of_models)


@pytest.mark.parametrize("name", [*DESCRIBED, *(name for name in RUNS if name.startswith("embedded"))])
def test_the_embedded_model_of_the_results_is_the_shipped_one(name):
    (about,) = read_manifest(FOLDER / name).values()
    assert about["model"]["sha256"] == hash_model(embedded_folder())


def test_the_embedded_model_reads_its_answers_off_the_picture():
    scores = totals("embedded")
    assert scores["closed"] >= 93 and scores["open"] >= 90
    questions, *_ = read_run("embedded")
    right, blind = (score_phantoms(questions, read_run(name)[1]) for name in ("embedded", "question-only"))
    for kind, least in (("closed", 0.15), ("open", 0.3)):
        chosen = [number for number, question in enumerate(questions) if question.kind == kind]
        assert paired_difference([right[n] for n in chosen], [blind[n] for n in chosen]).low >= least


def test_without_the_right_picture_it_knows_what_a_model_without_pictures_knows():
    shuffled, blind = totals("embedded-shuffled"), totals("question-only")
    assert abs(shuffled["closed"] - blind["closed"]) <= LARGEST_GAP
    assert abs(shuffled["open"] - blind["open"]) <= LARGEST_GAP


def test_its_descriptions_are_reports_of_their_pictures():
    scores = pd.read_csv(read_descriptions("descriptions")[3]).set_index(["system", "measure"]).score
    own = scores["embedded"]
    assert own["facts"] >= 90 and own["well-formed"] >= 97
    assert own["repeated"] <= 1 and own["adjacent duplicates"] <= 0.2
    assert scores["word salad", "facts"] <= 10
    # shown another picture, it describes that one: as true of the scene as a true report of that one is
    shuffled = pd.read_csv(read_descriptions("descriptions-shuffled")[3]).set_index(["system", "measure"])
    gap = shuffled.score["embedded", "facts"] - shuffled.score["another picture", "facts"]
    assert abs(gap) <= LARGEST_GAP


def test_the_model_card_shows_these_scores():
    card = (embedded_folder() / "README.md").read_text()
    for name in RUNS:
        table = pd.read_csv(read_run(name)[3])
        for row in table[table.group == "all"].itertuples():
            assert f"{row.score:.1f} [{row.low:.1f}, {row.high:.1f}]" in card, (name, row.kind)
    for name in DESCRIBED:
        table = pd.read_csv(read_descriptions(name)[3])
        systems = ["embedded"] if name == "descriptions-shuffled" else table.system.unique()
        for system in systems:
            own = table[table.system == system].set_index("measure").loc[list(SHOWN)]
            cells = (
                f"{row.score:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"
                for row, digits in zip(own.itertuples(), SHOWN.values(), strict=True)
            )
            assert f"| {' | '.join(cells)} |" in card, (name, system)


@pytest.mark.parametrize("name", STUDIES)
def test_summaries_of_studies_follow_from_their_scores(name):
    folder, (make_arms, baseline) = FOLDER.parent / "studies" / name, STUDIES[name]
    scores, stored = pd.read_csv(folder / "scores.csv"), pd.read_csv(folder / "summary.csv")
    assert stored["arm"].tolist() == [arm.name for arm in make_arms()]
    again = summarise_study(scores, baseline)
    assert set(stored["questions"]) == {
        json.loads((folder / "manifest.json").read_text())["settings"]["questions"]
    }
    numbers = stored.select_dtypes("number").columns
    # both files are rounded to four digits
    pd.testing.assert_frame_equal(stored[numbers], again[numbers], rtol=2e-3, atol=2e-3, check_dtype=False)


@pytest.mark.parametrize("name", STUDIES)
def test_controls_of_studies_are_those_of_their_scenes(name):
    folder = FOLDER.parent / "studies" / name
    questions = json.loads((folder / "manifest.json").read_text())["settings"]["questions"]
    stored, again = pd.read_csv(folder / "controls.csv"), score_controls(questions)
    pd.testing.assert_frame_equal(stored, again, rtol=2e-3, atol=1e-6, check_dtype=False)


def test_the_tables_of_the_ablations_follow_from_their_cells():
    cells = read_cells(ABLATIONS)
    for name, table in (("table", tabulate(cells)), ("differences", compare_arms(cells))):
        stored = (ABLATIONS / f"{name}.csv").read_text()
        assert stored == table.to_csv(index=False, float_format="%.3f", lineterminator="\n")
    assert all(cell["manifest"]["seed"] == cell["seed"] for cell in cells)
    towers = {cell["manifest"]["settings"]["vision_tower"] for cell in cells}
    assert len(towers) == 1  # one vision tower lies under all of them
    table = tabulate(cells)
    assert table.seeds.min() >= 5
    percent = table[~table.score.str.contains("words")]
    assert percent.low.min() >= 0 and percent.high.max() <= 100


@pytest.mark.parametrize("equal", EQUAL)
@pytest.mark.parametrize("arm", MAIN)
def test_the_arms_of_table_4_have_seeds_enough_for_an_interval(arm, equal):
    table = pd.read_csv(ABLATIONS / "table.csv")
    own = table[(table.arm == arm) & (table.equal == equal) & table.score.isin(["open", "closed", "facts"])]
    assert len(own) == 3 and own.seeds.min() >= 5 and own[["low", "high"]].notna().all(axis=None)


def test_what_is_said_of_the_agreement_with_the_paper_follows_from_the_intervals():
    counts, *lines = state_agreement(pd.read_csv(ABLATIONS / "differences.csv"))
    for page in (ROOT / "README.md", ROOT / "results" / "README.md"):
        assert counts.rstrip(":") in " ".join(page.read_text().split()), page
    page = (ROOT / "results" / "README.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("- ")] == lines
