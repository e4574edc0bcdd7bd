"""The phantom conversation: its make-up, references that are true and whole, and a judge that knows its questions."""

from collections import Counter
from dataclasses import replace

import pytest

from medv_lab.evaluation.judges import FactJudge, count_facts, summarise_verdicts
from medv_lab.phantoms.conversation import KINDS_OF_QUESTION, asked_facts, make_conversation
from medv_lab.phantoms.questions import PROBES
from medv_lab.phantoms.scenes import DOMAINS, Finding, Scene
from medv_lab.records import Prediction

SCENE = Scene("brain mri", (Finding("tumour", "left", "upper", "large"),), 0)
SIDE, KIND = frozenset({("side", "tumour", "left")}), frozenset({("kind", "tumour")})


@pytest.fixture(scope="module")
def questions():
    return make_conversation()


def relative(questions, answers) -> list[float]:
    predictions = [Prediction(one.id, "s", text) for one, text in zip(questions, answers, strict=True)]
    return [one.relative for one in FactJudge().judge(questions, predictions).verdicts]


def test_it_has_the_make_up_of_the_benchmark(questions):
    kinds = Counter(one.kind for one in questions)
    assert kinds["detailed_description"] == len({one.truth for one in questions}) == 50
    assert 120 <= kinds["conversation"] <= 150  # 143 there
    assert set(kinds) == set(KINDS_OF_QUESTION)
    domains = Counter(one.tags["domain"] for one in questions)
    assert set(domains) == set(DOMAINS)
    assert max(domains.values()) - min(domains.values()) <= 10  # 34 to 44 there
    assert len({one.id for one in questions}) == len(questions)
    assert questions == make_conversation()


def test_every_reference_is_true_and_complete_and_needs_nothing_but_the_picture(questions):
    for one in questions:
        asked = asked_facts(one)
        count = count_facts(one.reference, one.truth, asked if one.kind == "conversation" else None)
        assert (count.right, count.wrong, count.missing, count.contradictions) == (len(asked), 0, 0, 0)
        assert count.score > 8.5  # set phrases of a report repeat a little
    blind = make_conversation(with_pictures=False)
    assert blind == questions and {one.image for one in blind} == {None}


def test_the_short_true_answer_of_training_has_full_marks_for_conversation(questions):
    probes = {text: probe for probe in PROBES for text in probe.wordings}
    asked = [one for one in questions if one.kind == "conversation"]
    assert relative(asked, [probes[one.text].answer(one.truth) for one in asked]) == [100] * len(asked)


def test_silence_has_the_least_and_another_picture_s_answer_little(questions):
    assert relative(questions, [""] * len(questions)) == pytest.approx([10] * len(questions), abs=2)
    shifted = [one.reference for one in questions[7:] + questions[:7]]
    other = relative(questions, shifted)
    assert sum(other) / len(other) < 50


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("left", SIDE, (1, 0, 0)),
        ("The large tumour lies in the left upper zone.", SIDE, (1, 0, 0)),
        ("right", SIDE, (0, 1, 1)),
        ("left and right", SIDE, (1, 1, 0)),
        ("upper", SIDE, (0, 0, 1)),
        ("lower", SIDE, (0, 1, 1)),
        ("infarct", KIND, (0, 1, 1)),
        ("a tumour, and no plaque", KIND, (1, 0, 0)),
    ],
)
def test_a_reply_is_held_to_what_was_asked(text, asked, expected):
    count = count_facts(text, SCENE, asked)
    assert (count.right, count.wrong, count.missing) == expected


def test_the_other_finding_of_the_picture_is_not_the_answer():
    scene = replace(SCENE, findings=(*SCENE.findings, Finding("infarct", "right", "lower", "mild")))
    assert count_facts("tumour", scene, KIND).score == 10
    assert count_facts("infarct", scene, KIND).score == 1
    assert count_facts("tumour and infarct", scene, KIND).wrong == 1


def test_scores_are_averaged_by_kind_and_domain(questions):
    predictions = [Prediction(one.id, "s", one.reference) for one in questions]
    table = summarise_verdicts(questions, FactJudge().judge(questions, predictions).verdicts)
    assert set(table.group) == {"all", *KINDS_OF_QUESTION, *DOMAINS}


def test_a_question_of_one_s_own_has_no_facts(questions):
    with pytest.raises(ValueError, match="no question of the phantom benchmark"):
        asked_facts(replace(questions[0], text="Who painted this?"))


@pytest.mark.parametrize("pictures", [0, 7])
def test_domains_are_not_cut_short(pictures):
    with pytest.raises(ValueError, match="multiple of 5"):
        make_conversation(pictures=pictures)
