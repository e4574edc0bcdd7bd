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
from medv_lab.phantoms.scenes import DOMAINS, make_scene
from medv_lab.studies.panel_runs import Asked, answer_panels, find_examples, plan_system, trace_example
from medv_lab.studies.panels import (
    DESCRIPTIONS,
    PLANS,
    REPETITION,
    TRACE,
    Example,
    Plan,
    read_examples,
    read_panels,
    tabulate_repetition,
    write_examples,
)
from tests.evaluation.scripted import Scripted
from tests.model.tiny import save_tiny, tiny_config, tiny_model, tiny_processor

PLAN = PLANS["embedded"]
LOOP = "the lung the lung is is clear"


def ask(folder, *responders):
    examples = find_examples(folder)
    described = [one for one in examples if one.group == "description"]
    answer_panels([Asked(one, described, ["main"]) for one in responders], folder, progress=False)
    return read_panels(folder)


def test_the_examples_show_every_domain_and_are_right_about_their_scenes(tmp_path):
    examples = find_examples(tmp_path)
    assert read_examples(tmp_path / "questions.jsonl") == examples
    assert len({one.id for one in examples}) == len(examples)
    described = [one for one in examples if one.group == "description"]
    assert len(described) == DESCRIPTIONS and {one.domain for one in described} == set(DOMAINS)
    assert [one.group for one in examples].count("vqa") == 3 and [one.group for one in examples].count(
        "query"
    ) == 2
    for one in examples:
        scene = make_scene("test", one.scene)
        assert one.domain == scene.domain
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / one.picture)), render(scene))


def test_the_picture_files_are_the_same_bytes_at_every_run(tmp_path):
    def content(folder):
        return {one.picture: (folder / one.picture).read_bytes() for one in find_examples(folder)}

    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_varies_one_length_at_a_time_and_begins_with_its_main_settings(plan: Plan):
    sweep = list(plan.sweep())
    assert (
        sweep[0] == plan.long and [one for one, parts in plan.sweep().items() if "main" in parts] == sweep[:1]
    )
    assert {one.Z for one in sweep if (one.L, one.B) == (plan.long.L, plan.long.B)} == set(plan.steps)
    assert {one.L for one in sweep if one.L == one.Z and plan.length_block == one.B} >= set(plan.lengths)
    assert {one.B for one in sweep if (one.L, one.Z) == (plan.long.L, plan.long.Z)} >= set(plan.blocks)
    assert (plan.short.L, plan.short.B, plan.short.Z) == (64, 64, 64)


def test_other_questions_are_copied_with_their_pictures(tmp_path):
    source = tmp_path / "own"
    (source / "pictures").mkdir(parents=True)
    Image.new("L", (4, 6)).save(source / "pictures" / "x.png")
    example = Example("a", "vqa", "ct", "Why?", "So.", "pictures/x.png", phrases=("left lung",))
    write_examples([example], source)
    assert find_examples(tmp_path / "out", source / "questions.jsonl") == [example]
    assert (tmp_path / "out" / "pictures" / "x.png").is_file()


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a"}',
        '{"id": "a", "group": "poem", "domain": "", "question": "", "reference": "", "picture": ""}',
    ],
)
def test_a_line_that_is_no_question_is_an_error(tmp_path, line):
    (tmp_path / "questions.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"question of a panel|allowed are"):
        read_examples(tmp_path / "questions.jsonl")


def test_answers_come_back_with_question_settings_and_file(tmp_path):
    answers = ask(tmp_path, Scripted("diffusion", PLAN.long, LOOP), Scripted("twin", 96, "clear"))
    assert [one.lengths for one in answers] == [(96, 32, 96)] * DESCRIPTIONS + [
        (96, None, None)
    ] * DESCRIPTIONS
    assert {one.system for one in answers} == {"diffusion", "twin"}
    assert all(one.file.is_file() and one.example.group == "description" for one in answers)


def test_nothing_is_asked_twice_and_what_a_new_model_replaces_is_forgotten(tmp_path):
    old = Scripted("diffusion", PLAN.long, LOOP)
    ask(tmp_path, old, Scripted("twin", 96, "clear"))
    again = Scripted("diffusion", PLAN.long, LOOP)
    ask(tmp_path, again)
    assert len(old.asked) == DESCRIPTIONS and again.asked == []
    answers = ask(tmp_path, Scripted("diffusion", PLAN.long, "new", sha256="1"))
    assert {(one.system, one.answer) for one in answers} == {("diffusion", "new"), ("twin", "clear")}
    files = {path.name for path in tmp_path.glob("answers-*.jsonl")}
    assert files == {one.file.name for one in answers}


def test_repetition_is_counted_by_system_and_setting(tmp_path):
    fewer = replace(PLAN.long, steps=6)
    answers = ask(
        tmp_path, Scripted("diffusion", PLAN.long, "one two three"), Scripted("diffusion", fewer, LOOP)
    )
    table = pd.read_csv(tmp_path / REPETITION)
    pd.testing.assert_frame_equal(table, tabulate_repetition(answers), check_dtype=False)
    found = table.set_index(["Z", "metric"]).estimate
    assert found[96, "adjacent_duplicates"] == 0
    assert found[6, "adjacent_duplicates"] == pytest.approx(1 / 6)
    assert set(table.words) == {3, 7} and set(table.questions) == {DESCRIPTIONS}


def test_models_are_asked_by_their_kind(tmp_path):
    examples = find_examples(tmp_path)
    model, processor = tiny_model(), tiny_processor()
    asked = plan_system(model, processor, "V1", PLAN, examples)
    assert asked[0].responder.settings["gen_length"] == PLAN.long.L
    assert len(asked) == len(PLAN.sweep()) + 1 and {one.responder.name for one in asked} == {"V1"}
    assert [len(asked[index].examples) for index in (0, 1, -1)] == [DESCRIPTIONS + 2, DESCRIPTIONS, 3]
    twin = plan_system(MedVForNextToken(tiny_config(is_causal=True)), processor, "twin", PLAN, examples)
    assert [one.responder.settings["max_new_tokens"] for one in twin] == [PLAN.long.L, PLAN.short.L]


def test_the_trace_is_kept_until_model_or_settings_change(tmp_path):
    examples = find_examples(tmp_path)
    short = replace(PLAN, long=replace(PLAN.long, gen_length=8, block_length=8, steps=2))
    shorter = replace(PLAN, long=replace(short.long, steps=1))
    models = [
        save_tiny(tmp_path / name, seed) and load(tmp_path / name) for name, seed in (("one", 0), ("two", 1))
    ]

    def trace(model, plan):
        return trace_example(*model, examples[0], plan, tmp_path).read_bytes()

    first = trace(models[0], short)
    assert trace(models[0], short) == first
    assert trace(models[1], short) != first
    assert SampleTrace.load(tmp_path / TRACE).manifest["model"]["name"] == "two"
    trace(models[1], shorter)
    assert SampleTrace.load(tmp_path / TRACE).forward_evaluations == 1
