"""VQA scores, normal forms and the relative chat score against the recorded ones (`metrics.json`)."""

import math

import pytest

from medv_lab.data.chatbot import DOMAINS
from medv_lab.evaluation.judges import Verdict, summarise_verdicts
from medv_lab.metrics.scoring import (
    BLEU_WEIGHTS,
    bleu,
    closed_hit,
    count_ngrams,
    evaluate_vqa,
    exact_match,
    normalize,
    open_hit,
    parse_scores,
    word_overlap,
)
from medv_lab.records import Question
from tests.parity.golden import case_names, load_json

METRIC_TOLERANCE = 1e-9


def _recorded(*path: str):
    """A part of metrics.json; skips the test by name if the folder lacks it."""
    if not case_names("metrics", key=path[0]):
        pytest.skip(f"the golden folder has no {path[0]} in metrics.json")
    part = load_json("metrics")
    for name in path:
        if name not in part:
            pytest.skip(f"metrics.json has no {'.'.join(path)}")
        part = part[name]
    return part


def _item_scores(item: dict, candidates: list) -> dict[str, float]:
    """Every score that a recorded item may carry, under its recorded name."""
    prediction, reference = item["prediction"], item["reference"]
    overlap = word_overlap(prediction, reference)
    scores = {
        "closed_hit_single": closed_hit(prediction, reference, "llava_med"),
        "closed_hit_batch": closed_hit(prediction, reference, "llava_med_batch"),
        "closed_recall_batch": overlap.recall,
        "closed_f1_batch": overlap.f1,
        "exact_match": exact_match(prediction, reference),
        "f1": overlap.f1,
        "precision": overlap.precision,
        "recall": overlap.recall,
        "open_hit_substring": open_hit(prediction, reference, "llava_med_batch"),
    }
    if candidates:
        scores["open_hit_candidates"] = open_hit(prediction, reference, "llava_med", candidates)
    return scores | {name: bleu(prediction, reference, weights) for name, weights in BLEU_WEIGHTS.items()}


_TEXTS = {
    "id",
    "answer_type",
    "question",
    "reference",
    "prediction",
    "normalized_reference",
    "normalized_prediction",
}


def test_vqa_items():
    recorded = _recorded("vqa")
    wrong = []
    for item in recorded["items"]:
        ours = _item_scores(item, recorded.get("candidates", []))
        ours |= {f"normalized_{name}": normalize(item[name]) for name in ("reference", "prediction")}
        for name, expected in item.items():
            if name.startswith("normalized_"):
                is_same = ours[name] == expected
            elif name in _TEXTS:
                continue
            else:
                # BLEU values go down to 1e-308, where only a relative limit sees anything
                is_same = math.isclose(ours[name], expected, rel_tol=METRIC_TOLERANCE, abs_tol=0)
            if not is_same:
                wrong.append((item["id"], name, expected, ours[name]))
    assert not wrong


@pytest.mark.parametrize(
    ("script", "variant"), [("single", "llava_med"), ("batch", "llava_med_batch")], ids=["single", "batch"]
)
def test_vqa_aggregates(script, variant):
    recorded = _recorded("vqa")
    expected = _recorded("vqa", f"aggregate_{script}_script")
    questions = [
        Question(str(item["id"]), "?", reference=item["reference"], kind=item["answer_type"].lower())
        for item in recorded["items"]
    ]
    answers = [item["prediction"] for item in recorded["items"]]
    ours = evaluate_vqa(questions, answers, variant, recorded.get("candidates", []))
    assert ours.keys() == expected.keys()
    assert ours == pytest.approx(expected, rel=METRIC_TOLERANCE, abs=METRIC_TOLERANCE)


def test_normal_forms():
    assert {text: normalize(text) for text, _ in _recorded("normalize")} == dict(_recorded("normalize"))


def test_word_ngrams():
    for text, n, expected in _recorded("ngram_split"):
        assert dict(count_ngrams(text, n)) == expected


def test_relative_chat_scores():
    questions, verdicts = [], []
    for number, row in enumerate(_recorded("chat", "rows")):
        domain = next((name for name in DOMAINS if row["domain"].get(name)), "none")
        questions.append(Question(str(number), "?", kind=row["type"], tags={"domain": domain}))
        verdicts.append(Verdict(str(number), "judge", *parse_scores(row["result"])))
    table = summarise_verdicts(questions, verdicts).set_index("group")
    columns = ["reference_score", "candidate_score", "relative", "questions"]
    names = ["gpt4_score", "pred_score", "pred_relative_score", "data_size"]
    expected = _recorded("chat", "result")
    assert set(table.index) == expected.keys()
    for group, scores in expected.items():
        ours = dict(zip(names, table.loc[group, columns], strict=True))
        assert ours == pytest.approx(scores, rel=METRIC_TOLERANCE, abs=METRIC_TOLERANCE), group


def test_malformed_first_lines_are_rejected():
    for name, (review, outcome) in _recorded("chat", "malformed_first_lines").items():
        if isinstance(outcome, str) and outcome.endswith("Error"):
            with pytest.raises(ValueError, match="review"):
                parse_scores(review)
        else:
            assert list(parse_scores(review)) == list(outcome), name
