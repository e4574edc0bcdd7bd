"""Counterfactual pairs differ in one fact, and only reading that fact answers both questions of a pair."""

from dataclasses import asdict

import pytest

from medv_lab.evaluation.counterfactuals import CHANGES, evaluate_pairs, make_pairs, summarise_pairs
from medv_lab.phantoms.benchmark import IMAGE_SIZE
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import SPLITS, is_held_out


@pytest.fixture(scope="module")
def pairs():
    return make_pairs("test", 20)


def test_every_pair_differs_in_its_fact_alone(pairs):
    assert [pair.change for pair in pairs] == [change for change in CHANGES for _ in range(20)]
    for pair in pairs:
        one, two = pair.first.scene, pair.second.scene
        assert (one.domain, one.seed) == (two.domain, two.seed)
        assert pair.first.question.text == pair.second.question.text
        assert pair.first.question.answer != pair.second.question.answer
        if pair.change == "presence":
            assert (len(one.findings), len(two.findings)) == (1, 0)
            continue
        before, after = asdict(one.findings[0]), asdict(two.findings[0])
        assert [name for name in before if before[name] != after[name]] == [pair.change]


@pytest.mark.parametrize("split", SPLITS)
def test_what_training_holds_out_stays_in_its_split(split):
    for pair in make_pairs(split, 10):
        held = [
            any(is_held_out(i.scene.domain, f) for f in i.scene.findings) for i in (pair.first, pair.second)
        ]
        assert held[0] is (split == "compositional")
        assert not held[1] or split == "compositional"


def test_all_domains_take_part(pairs):
    for change in CHANGES:
        assert len({pair.first.scene.domain for pair in pairs if pair.change == change}) == 5


def test_reading_the_picture_answers_all_and_a_constant_answer_none(pairs):
    truth = {
        (render(item.scene, size=IMAGE_SIZE).tobytes(), item.question.text): item.question.answer
        for pair in pairs
        for item in (pair.first, pair.second)
    }

    def see(pictures, texts):
        return [truth[picture.tobytes(), text] for picture, text in zip(pictures, texts, strict=True)]

    table = summarise_pairs(pairs, evaluate_pairs(pairs, see))
    assert table.change.tolist() == list(CHANGES)
    assert (table.both_right == 100).all()
    assert (table.same_answer == 0).all()
    blind = summarise_pairs(pairs, evaluate_pairs(pairs, lambda pictures, texts: ["yes"] * len(texts)))
    assert (blind.both_right == 0).all()
    assert (blind.same_answer == 100).all()


def test_pairs_are_asked_for():
    with pytest.raises(ValueError, match="at least 1"):
        make_pairs("test", 0)
