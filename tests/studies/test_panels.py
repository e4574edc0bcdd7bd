"""A panels folder: every system at every setting of the plan, nothing asked twice, nothing old kept."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import DOMAINS
from medv_lab.store import write_lines
from medv_lab.studies.panel_runs import Asked, answer_panels, find_questions, plan_system, trace_example
from medv_lab.studies.panels import (
    DESCRIPTIONS,
    PLANS,
    REPETITION,
    TRACE,
    PanelPlan,
    read_panels,
    read_questions,
    tabulate_repetition,
)
from tests.evaluation.scripted import Scripted
from tests.model.tiny import save_tiny, tiny_config, tiny_model, tiny_processor

PLAN = PLANS["embedded"]
LOOP = "the lung the lung is is clear"


def ask(folder, *responders):
    described = [one for one in find_questions(folder) if one.kind == "description"]
    answer_panels([Asked(one, described, ["main"]) for one in responders], folder)
    return read_panels(folder)


def test_the_questions_show_every_domain_and_are_right_about_their_scenes(tmp_path):
    questions = find_questions(tmp_path)
    assert read_questions(tmp_path / "questions.jsonl") == questions
    assert len({one.id for one in questions}) == len(questions)
    described = [one for one in questions if one.kind == "description"]
    assert len(described) == DESCRIPTIONS and {one.tags["domain"] for one in described} == set(DOMAINS)
    kinds = [one.kind for one in questions]
    assert kinds.count("vqa") == 3 and kinds.count("query") == 2
    for one in questions:
        assert one.tags["domain"] == one.truth.domain
        np.testing.assert_array_equal(np.asarray(Image.open(one.image)), render(one.truth))


def test_the_files_are_the_same_bytes_at_every_run(tmp_path):
    def content(folder):
        find_questions(folder)
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_varies_one_length_at_a_time_and_begins_with_its_main_settings(plan: PanelPlan):
    sweep = list(plan.sweep())
    assert sweep[0] == plan.long
    assert [one for one, parts in plan.sweep().items() if "main" in parts] == sweep[:1]
    assert {one.Z for one in sweep if (one.L, one.B) == (plan.long.L, plan.long.B)} == set(plan.steps)
    assert {one.L for one in sweep if one.L == one.Z and one.B == 32} >= set(plan.lengths)
    assert {one.B for one in sweep if (one.L, one.Z) == (plan.long.L, plan.long.Z)} >= set(plan.blocks)
    assert (plan.short.L, plan.short.B, plan.short.Z) == (64, 64, 64)


def test_other_questions_are_copied_with_their_pictures(tmp_path):
    source = tmp_path / "own"
    (source / "pictures").mkdir(parents=True)
    Image.new("L", (4, 6)).save(source / "pictures" / "x.png")
    line = {"id": "a", "group": "vqa", "domain": "ct", "question": "Why?", "reference": "So."}
    line |= {"picture": "pictures/x.png", "phrases": ["left lung"]}
    write_lines(source / "questions.jsonl", [line])
    (question,) = find_questions(tmp_path / "out", source / "questions.jsonl")
    assert (question.id, question.text, question.reference, question.kind) == ("a", "Why?", "So.", "vqa")
    assert question.truth == ("left lung",) and question.tags == {"domain": "ct"}
    assert question.image == tmp_path / "out" / "pictures" / "x.png"
    assert (tmp_path / "out" / "pictures" / "x.png").is_file()


@pytest.mark.parametrize(
    ("change", "odd"),
    [({"group": "poem"}, "poem"), ({"picture": None}, "picture"), ({"phrase": []}, "phrase")],
)
def test_a_line_that_is_no_question_is_an_error(tmp_path, change, odd):
    names = ("id", "domain", "question", "reference", "picture")
    line = {**dict.fromkeys(names, ""), "group": "vqa", **change}
    line = {name: value for name, value in line.items() if value is not None}
    write_lines(tmp_path / "questions.jsonl", [line])
    with pytest.raises(ValueError, match=rf"line 1 .* no question of a panel \({odd}\)"):
        read_questions(tmp_path / "questions.jsonl")


def test_answers_come_back_with_question_settings_and_file(tmp_path):
    answers = ask(tmp_path, Scripted("diffusion", PLAN.long, LOOP), Scripted("twin", 96, "clear"))
    lengths = {one.prediction.system: one.lengths for one in answers}
    assert lengths == {"diffusion": (96, 32, 96), "twin": (96, None, None)}
    assert all((tmp_path / one.file).is_file() and one.question.kind == "description" for one in answers)


def test_nothing_is_asked_twice_and_what_a_new_model_replaces_is_forgotten(tmp_path):
    old = Scripted("diffusion", PLAN.long, LOOP)
    ask(tmp_path, old, Scripted("twin", 96, "clear"))
    again = Scripted("diffusion", PLAN.long, LOOP)
    ask(tmp_path, again)
    assert len(old.asked) == DESCRIPTIONS and again.asked == []
    answers = ask(tmp_path, Scripted("diffusion", PLAN.long, "new", sha256="1"))
    said = {one.prediction.system: one.prediction.text for one in answers}
    assert said == {"diffusion": "new", "twin": "clear"}
    files = {path.name for path in tmp_path.glob("answers-*.jsonl")}
    assert files == {one.file for one in answers}


def test_repetition_is_counted_by_system_and_setting(tmp_path):
    fewer = replace(PLAN.long, steps=6)
    both = Scripted("diffusion", PLAN.long, "one two three"), Scripted("diffusion", fewer, LOOP)
    answers = ask(tmp_path, *both)
    table = pd.read_csv(tmp_path / REPETITION)
    pd.testing.assert_frame_equal(table, tabulate_repetition(answers), check_dtype=False)
    found = table.set_index(["Z", "metric"]).estimate
    assert found[96, "adjacent_duplicates"] == 0
    assert found[6, "adjacent_duplicates"] == pytest.approx(1 / 6)
    assert set(table.words) == {3, 7} and set(table.questions) == {DESCRIPTIONS}


def test_models_are_asked_by_their_kind(tmp_path):
    questions = find_questions(tmp_path)
    model, processor = tiny_model(), tiny_processor()
    asked = plan_system(model, processor, "V1", PLAN, questions)
    assert asked[0].responder.settings["gen_length"] == PLAN.long.L
    assert len(asked) == len(PLAN.sweep()) + 1 and {one.responder.name for one in asked} == {"V1"}
    assert [len(asked[index].questions) for index in (0, 1, -1)] == [DESCRIPTIONS + 2, DESCRIPTIONS, 3]
    twin = plan_system(MedVForNextToken(tiny_config(is_causal=True)), processor, "twin", PLAN, questions)
    assert [one.responder.settings["max_new_tokens"] for one in twin] == [PLAN.long.L, PLAN.short.L]


def test_the_trace_is_kept_until_model_or_settings_change(tmp_path):
    questions = find_questions(tmp_path)
    short = replace(PLAN, long=replace(PLAN.long, gen_length=8, block_length=8, steps=2))
    shorter = replace(PLAN, long=replace(short.long, steps=1))
    models = [
        save_tiny(tmp_path / name, seed) and load(tmp_path / name) for name, seed in (("one", 0), ("two", 1))
    ]

    def trace(model, plan):
        return trace_example(*model, questions[0], plan, tmp_path).read_bytes()

    first = trace(models[0], short)
    assert trace(models[0], short) == first
    assert trace(models[1], short) != first
    assert SampleTrace.load(tmp_path / TRACE).manifest["model"]["name"] == "two"
    trace(models[1], shorter)
    assert SampleTrace.load(tmp_path / TRACE).forward_evaluations == 1
