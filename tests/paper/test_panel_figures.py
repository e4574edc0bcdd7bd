"""Which answers each panel shows, and that it shows them as they were given."""

import json
from dataclasses import replace

import pytest

from medv_lab.config import PRESETS
from medv_lab.paper.exhibits import MissingResults
from medv_lab.paper.panel_figures import PANEL_FIGURES
from medv_lab.paper.panel_sheets import mark_facts, marked_parts, read_answers
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.studies.panel_runs import Asked, answer_panels, find_questions
from medv_lab.studies.panels import PLANS
from medv_lab.views.style import themed
from tests.evaluation.scripted import Scripted

PLAN = PLANS["embedded"]
BY_NUMBER = {int(exhibit.name[3:5]): exhibit for exhibit in PANEL_FIGURES}
TEXT = "A chest x-ray with with fibrosis in the left lower zone."


def fill(results, *systems):
    folder = results / "panels"
    questions = find_questions(folder)
    described, at_length, briefly = (
        [one for one in questions if one.kind in kinds]
        for kinds in (["description"], ["description", "query"], ["vqa"])
    )
    asked = []
    for name in systems:
        if name == "twin":
            asked.append(Asked(Scripted(name, 96, TEXT), at_length, ["main"]))
            asked.append(Asked(Scripted(name, 64, "left"), briefly, ["short"]))
            continue
        for settings, parts in PLAN.sweep().items():
            chosen = at_length if "main" in parts else described
            asked.append(Asked(Scripted(name, settings, f"{TEXT} {settings.Z}"), chosen, parts))
        asked.append(Asked(Scripted(name, PRESETS["paper-vqa"], "fibrosis"), briefly, ["short"]))
    answer_panels(asked, folder)


@pytest.fixture(scope="module")
def all_systems(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    fill(results, "diffusion", "twin", "V1", "V2")
    return results


def test_each_figure_shows_what_its_caption_says(all_systems):
    data = {number: exhibit.collect(all_systems) for number, exhibit in BY_NUMBER.items()}
    assert list(dict.fromkeys(data[2].system)) == ["diffusion", "twin", "V1"] and data[2].item.nunique() == 2
    assert set(data[3].item) == {"A", "B", "C"} and set(data[3].L) == {64}
    assert set(data[3].Z.dropna()) == {64}
    assert set(data[4].system) == {"diffusion", "twin"} and set(data[4].L) == {96}
    assert set(data[5].system) == {"V1", "V2"} and data[5].groupby("system").size().tolist() == [4, 4]
    for number, domain in enumerate(DOMAINS, 6):
        assert set(data[number].domain) == {domain} and data[number].item.nunique() == 2
    curves = data[11][data[11].part == "Z"]
    assert set(curves.Z) == set(PLAN.steps) and set(curves.system) == {"diffusion", "V1", "V2"}
    assert set(data[12][data[12].part == "L"].L) == set(PLAN.lengths)
    assert set(data[12][data[12].part == "B"].B) == set(PLAN.blocks)


def test_answers_are_drawn_word_by_word(all_systems):
    for number in (2, 5):
        data = BY_NUMBER[number].collect(all_systems)
        with themed():
            figure = BY_NUMBER[number].draw(data, all_systems)
        drawn = [text.get_text() for text in figure.axes[0].texts]
        for answer in data.answer:  # a stop behind a marked word is a word of its own
            assert "".join(answer.split()) in "".join(drawn)


def test_curves_draw_the_frame(all_systems):
    data = BY_NUMBER[11].collect(all_systems)
    with themed():
        figure = BY_NUMBER[11].draw(data, all_systems)
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    for system, rows in data[data.part == "Z"].groupby("system"):
        rows = rows.sort_values("Z")
        assert lines[system].get_xdata().tolist() == rows.Z.tolist()
        assert lines[system].get_ydata().tolist() == rows.estimate.tolist()


def test_with_one_system_everything_is_drawn_and_v1_and_v2_are_not_pretended(tmp_path):
    fill(tmp_path, "diffusion")
    for exhibit in PANEL_FIGURES:
        data = exhibit.collect(tmp_path)
        assert set(data.system) == {"diffusion"}
    assert "the diffusion model's are shown" in BY_NUMBER[5].caption


def test_without_answers_the_command_is_named(tmp_path):
    with pytest.raises(MissingResults, match="medv panels"):
        BY_NUMBER[2].collect(tmp_path)


def test_marks_cut_the_text_without_loss(all_systems):
    for row in BY_NUMBER[5].collect(all_systems).itertuples():
        parts = marked_parts(row)
        assert "".join(text for text, _ in parts) == row.answer
        assert [text for text, mark in parts if mark] == ["with with"]


def say(one, text):
    return replace(one, prediction=replace(one.prediction, text=text))


def test_short_answers_are_right_or_wrong_as_a_whole_and_phrases_stand_in_for_scenes(all_systems):
    one = next(one for one in read_answers(all_systems) if one.question.kind == "vqa")
    question = replace(one.question, reference="left lung")
    right = say(replace(one, question=question), "The left lung")
    assert mark_facts(right) == [[0, 13, "right"]]
    assert mark_facts(say(right, "The lung")) == [[0, 8, "wrong"]]
    other = replace(question, kind="description", truth=("Pleural effusion", "left"))
    marks = mark_facts(say(replace(right, question=other), "A left pleural effusion."))
    assert marks == [[2, 6, "right"], [7, 23, "right"]]
    assert json.dumps(marks)
