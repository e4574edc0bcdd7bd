"""A judge behind an endpoint: what it is sent, what is saved, what it may cost, and what a kill cannot do."""

import random
import time
from dataclasses import replace

import pytest

from medv_lab.evaluation import runner
from medv_lab.evaluation.endpoint import Endpoint, EndpointError
from medv_lab.evaluation.endpoint_judge import (
    INSTRUCTIONS,
    MATERIAL,
    STORE,
    EndpointJudge,
    SpendingCapError,
    make_messages,
)
from medv_lab.evaluation.judges import position_bias, summarise_verdicts
from medv_lab.evaluation.runner import answer_questions
from medv_lab.records import Prediction, Question, read_predictions
from medv_lab.store import Store, StoreError, content_key
from tests.evaluation.chat_server import GARBAGE, Books, serve
from tests.evaluation.children import child_context
from tests.evaluation.scripted import Echo

QUESTIONS = [
    Question(f"q{n}", f"What is {n}?", reference=f"reference {n}", caption="a caption") for n in range(6)
]
PREDICTIONS = [Prediction(f"q{n}", "s", f"candidate {n}") for n in range(6)]
ASKED = (QUESTIONS, PREDICTIONS)


def first(count: int):
    return QUESTIONS[:count], PREDICTIONS[:count]


def alike(count: int, text: str = "What?"):
    questions = [Question(f"q{n}", text.format(n), reference="a cyst") for n in range(count)]
    return questions, [Prediction(one.id, "s", "a tumour") for one in questions]


def bodies(folder):
    store = Store(folder, STORE)
    return [store[key]["body"] for key in store if store[key]["event"] == "reply"]


@pytest.fixture
def books():
    with serve(Books(usage={"prompt_tokens": 100, "completion_tokens": 10})) as made:
        yield made


def test_every_answer_is_scored_by_one_call_and_rescoring_makes_none(books, tmp_path):
    judge = EndpointJudge(books.endpoint(), tmp_path)
    judgement = judge.judge(*ASKED)
    assert [one.question_id for one in judgement.verdicts] == [one.id for one in QUESTIONS]
    assert {(one.reference_score, one.candidate_score, one.relative) for one in judgement.verdicts} == {
        (8, 6, 75)
    }
    assert sum(books.made.values()) == len(books.requests) == 6
    assert {(request["temperature"], request["seed"]) for request in books.requests} == {(0, 0)}
    assert judge.judge(*ASKED) == judge.rescore(*ASKED) == judgement
    assert len(books.requests) == 6


def test_a_changed_answer_or_judge_is_asked_anew_and_never_mixed(books, tmp_path):
    judge = EndpointJudge(books.endpoint(), tmp_path)
    before = judge.judge(*ASKED)
    judge.judge(QUESTIONS, [replace(PREDICTIONS[0], text="another"), *PREDICTIONS[1:]])
    assert len(books.requests) == 7
    judge.judge(
        [replace(one, tags={"domain": "ct"}) for one in QUESTIONS], PREDICTIONS
    )  # the prompt is the same
    assert len(books.requests) == 7
    other = EndpointJudge(books.endpoint(seed=1), tmp_path)
    assert other.rescore(*ASKED).unscored == tuple(one.id for one in QUESTIONS)
    after = other.judge(*ASKED)
    table = summarise_verdicts(QUESTIONS, [*before.verdicts, *after.verdicts])
    assert set(table.judge) == {judge.name, other.name}
    assert set(table.questions) == {6}


def test_the_judge_is_told_all_of_the_question_and_which_answer_is_which():
    question = Question("q", "WHAT?", reference="TRUE", caption="CAPTION", context="CONTEXT {x}")
    for is_swapped, answers in ((False, ("TRUE", "SAID")), (True, ("SAID", "TRUE"))):
        text = make_messages(question, Prediction("q", "s", "SAID"), is_swapped)[-1]["content"]
        order = [text.index(part) for part in ("CAPTION", "CONTEXT {x}", "WHAT?", *answers)]
        assert order == sorted(order)


def test_with_both_orders_scores_follow_the_answers_and_the_bias_is_measured(books, tmp_path):
    judgement = EndpointJudge(books.endpoint(), tmp_path, swap=True).judge(*ASKED)  # it always says 8 6
    scores = {(one.is_swapped, one.reference_score, one.candidate_score) for one in judgement.verdicts}
    assert scores == {(False, 8, 6), (True, 6, 8)}
    assert position_bias(judgement.verdicts).estimate == 2
    assert set(summarise_verdicts(QUESTIONS, judgement.verdicts).order) == {
        "reference first",
        "candidate first",
    }


@pytest.mark.parametrize("body", GARBAGE)
def test_what_cannot_be_read_is_saved_asked_again_and_then_listed(books, tmp_path, body, monkeypatch):
    monkeypatch.setattr("tests.evaluation.chat_server.GARBAGE", (body,))
    books.garbles = 1
    judge = EndpointJudge(books.endpoint(), tmp_path, read_tries=2)
    judgement = judge.judge(*first(2))
    assert judgement.verdicts == ()
    assert judgement.unscored == ("q0", "q1")
    assert bodies(tmp_path) == [body] * 4
    assert sorted(request["seed"] for request in books.requests) == [0, 0, 1, 1]
    assert judge.judge(*first(2)).unscored == ("q0", "q1")
    assert len(books.requests) == 4
    assert judge.spending().unparsable == judge.spending().calls == 4


def test_a_call_that_keeps_failing_ends_the_run_and_keeps_what_there_is(books, tmp_path):
    judge = EndpointJudge(books.endpoint(tries=2), tmp_path)
    before = judge.judge(*first(3))
    books.fails = 1
    with pytest.raises(EndpointError, match="did not answer in 2 tries"):
        judge.judge(*ASKED)
    assert judge.rescore(*ASKED).verdicts == before.verdicts
    assert judge.spending().lost == 0
    books.fails = 0
    assert judge.judge(*ASKED).unscored == ()


def test_calls_at_the_same_time_are_limited(books, tmp_path):
    books.delay = 0.03
    EndpointJudge(books.endpoint(concurrency=2), tmp_path).judge(*ASKED)
    assert books.most_running == 2


def test_a_dry_run_calls_nobody_and_costs_are_those_of_the_tokens(books, tmp_path):
    judge = EndpointJudge(books.endpoint(), tmp_path, prices=(1, 10))
    plan = judge.plan(*ASKED)
    assert (plan.calls, len(books.requests)) == (6, 0)
    assert plan.cost == pytest.approx((plan.tokens_in + 10 * plan.tokens_out) / 1e6)
    judge.judge(*first(4))
    assert judge.plan(*ASKED).calls == 2
    spent = judge.spending()
    assert (spent.calls, spent.tokens_in, spent.tokens_out) == (4, 400, 40)
    assert spent.cost == pytest.approx(800e-6)


def test_the_cap_is_never_passed(books, tmp_path):
    books.usage = {"prompt_tokens": 400, "completion_tokens": 512}  # full answers
    prices = (0, 1e6 / 512)  # one of these costs 1
    judge = EndpointJudge(books.endpoint(), tmp_path, prices=prices, cap=3.5)
    with pytest.raises(SpendingCapError, match="raise the cap"):
        judge.judge(*ASKED)
    assert judge.spending().cost == sum(books.made.values()) == 3
    raised = EndpointJudge(books.endpoint(), tmp_path, prices=prices, cap=6)
    assert raised.judge(*ASKED).unscored == ()
    assert sum(books.made.values()) == 6


def test_what_cannot_be_judged_is_refused(books, tmp_path):
    with pytest.raises(ValueError, match="no prices"):
        EndpointJudge(books.endpoint(), tmp_path, cap=1.0)
    twice = [*QUESTIONS, QUESTIONS[0]], [*PREDICTIONS, PREDICTIONS[0]]
    with pytest.raises(ValueError, match="'q0'"):
        EndpointJudge(books.endpoint(), tmp_path).judge(*twice)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1.0, "2", True])
def test_a_cap_or_a_price_that_is_no_amount_is_refused(books, tmp_path, amount):
    for wrong in ({"prices": (1, 1), "cap": amount}, {"prices": (amount, 1)}, {"prices": (1, amount)}):
        with pytest.raises(ValueError, match="cap is|price of tokens"):
            EndpointJudge(books.endpoint(), tmp_path, **wrong)
    endless = books.endpoint(max_tokens=None)
    with pytest.raises(ValueError, match="nothing limits an answer"):
        EndpointJudge(endless, tmp_path, prices=(1, 1), cap=1)


def test_what_is_sent_is_part_of_who_the_judge_is(books, tmp_path):
    varied = ({}, {"temperature": 1}, {"temperature": None}, {"seed": None}, {"max_completion_tokens": 9})
    judges = [EndpointJudge(books.endpoint(**one), tmp_path) for one in varied]
    for number, judge in enumerate(judges, 1):
        judge.judge(*first(1))
        assert len(books.requests) == number
    assert len({judge.name for judge in judges}) == len(judges)
    # replies that were paid for before there were such parameters are found again
    usual = ("http://a/v1", "m", 0, 512)
    assert EndpointJudge(Endpoint("m", "http://a/v1"), tmp_path)._identity == content_key(
        usual, INSTRUCTIONS, MATERIAL
    )


def test_a_refused_question_is_an_outcome_and_the_others_are_judged(books, tmp_path):
    books.filtered = "What is 2?"
    judge = EndpointJudge(books.endpoint(), tmp_path)
    judgement = judge.judge(*ASKED)
    assert [one.question_id for one in judgement.verdicts] == ["q0", "q1", "q3", "q4", "q5"]
    assert judgement.unscored == judgement.refused == ("q2",)
    assert "1 of 6 unscored (1 refused" in judgement.describe_unscored(6)
    calls = len(books.requests)
    assert judge.judge(*ASKED) == judge.rescore(*ASKED) == judgement
    assert len(books.requests) == calls
    assert (judge.spending().calls, judge.spending().lost, judge.plan(*ASKED).calls) == (5, 0, 0)


def test_a_refused_answer_is_asked_only_once(books, tmp_path):
    books.garbles = 1
    with pytest.MonkeyPatch.context() as patch:
        silent = '{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
        patch.setattr("tests.evaluation.chat_server.GARBAGE", (silent,))
        judgement = EndpointJudge(books.endpoint(), tmp_path).judge(*first(1))
    assert judgement.refused == ("q0",) and len(books.requests) == 1


def test_what_was_never_answered_is_not_judged(books, tmp_path):
    answers = [replace(PREDICTIONS[0], text="", refusal="content_filter"), PREDICTIONS[1]]
    judgement = EndpointJudge(books.endpoint(), tmp_path).judge(QUESTIONS[:2], answers)
    assert judgement.refused == ("q0",) and [one.question_id for one in judgement.verdicts] == ["q1"]
    assert len(books.requests) == 1


@pytest.mark.parametrize("content", ["8/10 6/10", "8, 6", "**8** **6**", "8 6  "])
def test_scores_in_another_form_are_paid_for_once(books, tmp_path, content):
    books.content = content
    judgement = EndpointJudge(books.endpoint(), tmp_path).judge(*first(1))
    assert (judgement.verdicts[0].reference_score, judgement.verdicts[0].candidate_score) == (8, 6)
    assert len(books.requests) == 1


def test_a_poisoned_reply_breaks_no_rerun(books, tmp_path, monkeypatch):
    poison = '{"choices": ' + "[" * 100_000
    monkeypatch.setattr("tests.evaluation.chat_server.GARBAGE", (poison,))
    books.garbles = 1
    judge = EndpointJudge(books.endpoint(), tmp_path, read_tries=1)
    assert judge.judge(*first(1)).unscored == ("q0",)
    assert judge.judge(*first(1)).unscored == ("q0",)
    assert bodies(tmp_path) == [poison]


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "x"}',
        '{"key": "x", "judge": "j", "job": "a", "attempt": 0, "event": "begun"}',
        '{"key": "x", "judge": "j", "job": "a", "attempt": 0, "event": "reply", "body": 5}',
        '{"key": "x", "judge": "j", "job": [], "attempt": 0, "event": "failed"}',
        '{"key": "x", "judge": "j", "job": "a", "attempt": "0", "event": "failed"}',
        '{"key": "x", "judge": "j", "job": "a", "attempt": 0, "event": "dreamt"}',
        '{"key": "x", "text": ' + "[" * 10_000,
    ],
)
def test_a_foreign_line_in_the_journal_is_named(books, tmp_path, line):
    EndpointJudge(books.endpoint(), tmp_path).judge(*first(1))
    (journal,) = tmp_path.glob("reviews-*.jsonl")
    journal.write_text(journal.read_text() + line + "\n")
    with pytest.raises(StoreError, match=f"line 3 of {journal.name}.* delete the"):
        EndpointJudge(books.endpoint(), tmp_path).judge(*ASKED)


def test_no_key_is_an_error_before_any_call(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointError, match="OPENAI_API_KEY"):
        EndpointJudge(Endpoint("m"), tmp_path).judge(*ASKED)


def judge_all(endpoint, folder, asked, started) -> None:
    judge = EndpointJudge(endpoint, folder, read_tries=20)
    started.set()
    judge.judge(*asked)


def evaluate_all(endpoint, folder, asked, started) -> None:
    judge = EndpointJudge(endpoint, folder, read_tries=20)
    started.set()
    judge.judge(asked[0], answer_questions(asked[0], Echo(), folder, batch_size=2))


def run_and_kill(
    context, endpoint, folder, asked, moment: float | None, target=judge_all, has_begun=lambda: True
) -> int:
    """Work in another process; kill it so many seconds after it has begun, or let it end. Its exit code."""
    started = context.Event()
    child = context.Process(target=target, args=(endpoint, folder, asked, started))
    child.start()
    assert started.wait(300)
    if moment is not None:
        while child.is_alive() and not has_begun():
            time.sleep(0.002)
        time.sleep(moment)
        child.kill()
    child.join(300)
    return child.exitcode


@pytest.mark.parametrize("charges_once", [True, False])
@pytest.mark.parametrize(("kills", "questions"), [(4, 60), pytest.param(20, 250, marks=pytest.mark.slow)])
def test_nothing_is_lost_or_paid_twice_whenever_it_is_killed(tmp_path, kills, questions, charges_once):
    asked = alike(questions)
    rng = random.Random(kills + charges_once)
    context = child_context()
    books = Books(fails=0.2, garbles=0.15, delay=0.05, charges_once=charges_once, rng=rng)
    with serve(books):
        endpoint = books.endpoint(concurrency=3, tries=30)  # a busy machine times out by itself
        moments = [rng.uniform(0, 0.3) for _ in range(kills)]
        codes = [run_and_kill(context, endpoint, tmp_path, asked, moment) for moment in moments]
        assert set(codes) <= {-9, 0}  # 0: it was done before it could be killed
        assert codes.count(-9) > kills / 2
        assert run_and_kill(context, endpoint, tmp_path, asked, None) == 0
        judge = EndpointJudge(endpoint, tmp_path, read_tries=20)
        calls = len(books.requests)
        judgement = judge.judge(*asked)
        assert len(books.requests) == calls
    assert [one.question_id for one in judgement.verdicts] == [one.id for one in asked[0]]
    assert min(books.failures[status] for status in (429, 500, 0)) > 0
    spent = judge.spending()
    assert spent.calls == questions + spent.unparsable  # what was saved
    assert spent.unparsable > 0
    assert spent.lost <= kills * endpoint.concurrency
    paid = sum(books.made.values())
    if charges_once:
        assert paid == spent.calls
        assert spent.unparsable == books.garbled
    else:
        assert spent.calls <= paid <= spent.calls + spent.lost


@pytest.mark.slow
def test_a_judged_evaluation_survives_twenty_kills_from_its_first_answer_to_its_last_score(tmp_path):
    asked = alike(150, "What is {}?")
    rng, context = random.Random(7), child_context()
    with serve(Books(fails=0.2, garbles=0.15, delay=0.03, rng=rng)) as books:
        work = (context, books.endpoint(concurrency=3, tries=30), tmp_path, asked)
        for number in range(20):
            before = len(books.requests) if number % 2 else -1  # every other one is killed while it judges

            def has_begun(before=before) -> bool:
                return len(books.requests) > before

            moment = rng.uniform(0, 0.3)
            assert run_and_kill(*work, moment, evaluate_all, has_begun) in (-9, 0)
        assert run_and_kill(*work, None, evaluate_all) == 0
        calls = len(books.requests)
        assert run_and_kill(*work, None, evaluate_all) == 0
        assert len(books.requests) == calls
    (answers,) = read_predictions(tmp_path).values()
    assert [one.question_id for one in answers] == [one.id for one in asked[0]]
    assert len(Store(tmp_path, runner.STORE)) == len(answers)
    judge = EndpointJudge(work[1], tmp_path, read_tries=20)
    verdicts, spent = judge.rescore(asked[0], answers).verdicts, judge.spending()
    assert [one.question_id for one in verdicts] == [one.id for one in asked[0]]
    assert sum(books.made.values()) == spent.calls == len(answers) + spent.unparsable


def test_a_second_process_is_kept_out(tmp_path):
    context = child_context()
    with serve(Books(delay=0.2)) as books:
        started = context.Event()
        child = context.Process(target=judge_all, args=(books.endpoint(), tmp_path, ASKED, started))
        child.start()
        assert started.wait(300)
        deadline = time.monotonic() + 30
        while not books.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        books.delay = 3
        with pytest.raises(StoreError, match=f"process {child.pid}"):
            EndpointJudge(books.endpoint(), tmp_path).judge(*ASKED)
        child.kill()
        child.join()
