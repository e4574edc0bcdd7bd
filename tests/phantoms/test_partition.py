"""Phantom VQA as three benchmarks: disjoint in domain, balanced each for itself, scored as LLaVA-Med scores."""

from collections import Counter

import pytest

from medv_lab.metrics.scoring import Script, evaluate_vqa
from medv_lab.phantoms.partition import BENCHMARKS, benchmark_items, benchmark_queries, make_benchmarks
from medv_lab.phantoms.scenes import DOMAINS, is_held_out


@pytest.fixture(scope="module")
def asked():
    return make_benchmarks(2)


def test_every_benchmark_has_its_own_pictures(asked):
    by_name = {name: [one for one in asked if one.benchmark == name] for name in BENCHMARKS}
    seen = {name: {one.scene.domain for one in part} for name, part in by_name.items()}
    assert seen["radiology"] | seen["tissue"] == set(DOMAINS)
    assert not seen["radiology"] & seen["tissue"]
    assert seen["compositional"] == set(DOMAINS)
    for name, part in by_name.items():
        held_out = [is_held_out(one.scene.domain, f) for one in part for f in one.scene.findings]
        assert all(held_out) if name == "compositional" else not any(held_out)
    assert len({one.id for one in asked}) == len(asked)


def test_a_wording_gives_no_answer_away(asked):
    answers: dict[tuple, Counter] = {}
    for one in asked:
        answers.setdefault((one.benchmark, one.question.text), Counter())[one.question.answer] += 1
    assert all(len(found) > 1 and len(set(found.values())) == 1 for found in answers.values())
    yes = [item for item in benchmark_items(asked, ["yes"] * len(asked)) if item.answer_type == "CLOSED"]
    assert evaluate_vqa(yes, Script.SINGLE, ["yes"])["yes/no accuracy"] == 50


def test_the_true_answer_has_full_marks(asked):
    items = benchmark_items(asked, [one.question.answer for one in asked])
    table = evaluate_vqa(items, Script.BATCH)
    assert (table["recall"], table["yes/no accuracy"]) == (100, 100)


def test_whoever_is_blind_is_shown_nothing(asked):
    few = asked[:3]
    assert {query.image for query in benchmark_queries(few, with_pictures=False)} == {None}
    assert all(query.image.shape == (72, 72, 3) for query in benchmark_queries(few))
    with pytest.raises(ValueError, match="1 or more"):
        make_benchmarks(0)
