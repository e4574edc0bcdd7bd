"""The general-domain world: the same scenes every time, words that are true of them, pixels that show them."""

from collections import Counter
from dataclasses import replace

import numpy as np

from medv_lab.phantoms import general, scenes
from medv_lab.phantoms.general import PROBES, GeneralScene, Thing, caption, make_general_scenes, paint
from medv_lab.phantoms.questions import balanced_questions
from medv_lab.phantoms.reports import make_dialogue

WORLD = make_general_scenes(600)


def test_scenes_and_pictures_are_the_same_every_time():
    assert WORLD[:50] == make_general_scenes(50)
    assert all(np.array_equal(paint(scene), paint(scene)) for scene in WORLD[:5])


def test_all_facts_occur_and_no_two_things_share_a_cell():
    things = [thing for scene in WORLD for thing in scene.things]
    assert {thing.kind for thing in things} == set(general.ALL_KINDS)
    assert {thing.colour for thing in things} == set(general.COLOURS)
    assert {(thing.side, thing.zone) for thing in things} == set(scenes.CELLS)
    assert Counter(len(scene.things) for scene in WORLD).keys() == {0, 1, 2}
    for scene in WORLD:
        assert len({(thing.side, thing.zone) for thing in scene.things}) == len(scene.things)
        assert all(thing.kind in general.KINDS[scene.domain] for thing in scene.things)


def test_nothing_in_it_is_medical():
    medical = {kind for kinds in scenes.KINDS.values() for kind in kinds} | set(scenes.DOMAINS)
    said = " ".join([*map(caption, WORLD), *(word for probe in PROBES for word in probe.wordings)])
    assert not [word for word in medical if word in said]


def test_a_thing_is_painted_in_its_colour_and_its_cell_alone():
    empty = GeneralScene("drawing", (), 3)
    for side, zone in scenes.CELLS:
        full = paint(replace(empty, things=(Thing("circle", "red", side, zone),)))
        rows, columns = np.nonzero(np.abs(full.astype(int) - paint(empty)).max(-1) > 30)
        assert (columns < 36).all() if side == "left" else (columns >= 36).all()
        third = np.median(rows) // 24
        assert third == scenes.ZONES.index(zone)
        red, green, blue = full[int(np.median(rows)), int(np.median(columns))]
        assert red > 2 * green
        assert red > 2 * blue


def test_every_kind_of_thing_looks_different():
    shown = []
    for domain, kinds in general.KINDS.items():
        for kind in kinds:
            scene = GeneralScene(domain, (Thing(kind, "blue", "left", "middle"),), 1)
            shown.append(np.abs(paint(scene).astype(int) - paint(replace(scene, things=()))).max(-1) > 40)
    overlaps = [(a & b).sum() / (a | b).sum() for n, a in enumerate(shown) for b in shown[:n]]
    assert max(overlaps) < 0.9
    assert min(mask.sum() for mask in shown) > 30


def test_questions_are_balanced_and_true():
    questions = balanced_questions(WORLD, 2, 0, PROBES)
    assert {question.probe for question in questions} == set(PROBES)
    assert all(question.probe.answer(WORLD[question.scene]) == question.answer for question in questions)
    counts = Counter((question.text, question.answer) for question in questions)
    for text in {question.text for question in questions}:
        assert len({count for (asked, _), count in counts.items() if asked == text}) == 1


def test_captions_say_everything_and_dialogues_repeat_nothing():
    rng = np.random.default_rng(0)
    for scene in WORLD[:100]:
        for thing in scene.things:
            place = f"{thing.colour} {thing.kind} in the {thing.side} {thing.zone}"
            assert place in caption(scene)
        turns = make_dialogue(scene, rng, 3, PROBES)
        assert len({question for question, _ in turns}) == 3
