"""A results folder: nothing asked twice, nothing torn, and any number of processes give the same."""

import json
import os
import random
import time

import numpy as np
import pytest
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.judges import OverlapJudge
from medv_lab.evaluation.responders import DiffusionResponder
from medv_lab.evaluation.runner import (
    STORE,
    answer_all,
    answer_questions,
    hash_picture,
    make_key,
)
from medv_lab.records import Question, read_manifest, read_predictions
from medv_lab.store import ExclusiveAccess, Store, StoreError, read_lines
from tests.evaluation.children import child_context
from tests.evaluation.scripted import Echo
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=8, block_length=4, steps=4)
QUESTIONS = [
    Question(f"q{number}", f"What is {'very ' * (7 * number % 5)}{number}?", reference="a nodule in the lung")
    for number in range(11)
]


def run(folder, responder=None, questions=QUESTIONS, **settings):
    return answer_questions(questions, responder or Echo(), folder, **settings)


def shape(predictions):
    return [(one.question_id, one.text, one.passes) for one in predictions]


def test_answers_come_in_the_order_of_the_questions_with_their_counts(tmp_path):
    answers = run(tmp_path, batch_size=4)
    assert [(one.question_id, one.text) for one in answers] == [
        (question.id, f"you asked: {question.text}") for question in QUESTIONS
    ]
    assert all(one.passes == 3 and one.seconds >= 0 and one.batch in (3, 4) for one in answers)
    assert read_predictions(tmp_path) == {answers[0].run: answers}


def test_the_exported_lines_hold_question_and_answer(tmp_path):
    (first, *_) = run(tmp_path)
    line = read_lines(tmp_path / f"answers-{first.run}.jsonl")[0]
    assert {"question", "reference", "kind", "tags", "text", "system", "run"} <= line.keys()
    assert (line["question"], line["system"]) == (QUESTIONS[0].text, "echo")


def test_batches_are_alike_in_length(tmp_path):
    echo = Echo()
    run(tmp_path, echo, batch_size=4)
    lengths = {question.id: len(question.text) for question in QUESTIONS}
    asked = [lengths[name] for name in echo.asked_ids]
    assert asked == sorted(asked)
    assert [len(batch) for batch in echo.asked] == [4, 4, 3]


def test_answers_in_memory_are_those_of_a_folder(tmp_path):
    assert shape(answer_all(QUESTIONS, Echo(), batch_size=4)) == shape(run(tmp_path))


def test_a_rerun_asks_only_what_is_missing(tmp_path):
    run(tmp_path, questions=QUESTIONS[:4])
    echo = Echo()
    assert len(run(tmp_path, echo)) == len(QUESTIONS)
    assert sorted(echo.asked_ids) == sorted(question.id for question in QUESTIONS[4:])
    again = Echo()
    run(tmp_path, again)
    assert again.asked == []


@pytest.mark.parametrize("changed", [{"sha256": "1"}, {"steps": 2}])
def test_another_model_or_setting_is_another_run_in_the_same_folder(tmp_path, changed):
    run(tmp_path)
    echo = Echo(**changed)
    run(tmp_path, echo)
    assert len(echo.asked_ids) == len(QUESTIONS)
    assert len(read_predictions(tmp_path)) == len(read_manifest(tmp_path)) == 2


def test_the_manifest_names_model_settings_versions_and_notes(tmp_path):
    echo = Echo(seed=7)
    run(tmp_path, echo, notes={"parts": ["main"]})
    about = read_manifest(tmp_path)[echo.run]
    assert about["model"]["sha256"] == "0" and about["parts"] == ["main"]
    assert (about["seed"], about["settings"], about["questions"]) == (7, {"seed": 7}, len(QUESTIONS))
    assert "torch" in about["versions"] and about["device"] is None  # nothing is loaded
    before = (tmp_path / "manifest.json").read_text()
    run(tmp_path, Echo(seed=7), notes={"parts": ["main"]})
    assert (tmp_path / "manifest.json").read_text() == before


def test_the_key_follows_question_picture_model_and_settings(tmp_path):
    black, white = (np.full((2, 2, 3), shade, np.uint8) for shade in (0, 255))
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, pixels in zip(files, (black, white), strict=True):
        Image.fromarray(pixels).save(file)
    pictures = (black, white, *files, [black, white], Image.fromarray(black))
    questions = [Question("q", "?"), Question("r", "?"), Question("q", "!")]
    questions += [Question("q", "?", picture) for picture in pictures]
    keys = [make_key(question, Echo()) for question in questions]
    keys += [make_key(questions[0], other) for other in (Echo(sha256="1"), Echo(steps=1))]
    assert len(set(keys)) == len(keys)
    assert hash_picture(files[0]) == hash_picture(files[0].read_bytes()) == hash_picture(str(files[0]))
    with pytest.raises(TypeError, match="int is not a picture"):
        hash_picture(3)


@pytest.mark.parametrize("length", [1, 40, -1])
def test_a_torn_last_line_is_asked_again(tmp_path, length):
    first = run(tmp_path, batch_size=1)
    (path,) = tmp_path.glob(f"{STORE}-*.jsonl")
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + last[:length])
    echo = Echo()
    assert shape(run(tmp_path, echo)) == shape(first)
    assert len(echo.asked_ids) == 1


def test_a_paid_responder_is_asked_by_one_process_at_a_time(tmp_path, monkeypatch):
    paid = Echo(sha256="paid")
    paid.is_paid = True
    with ExclusiveAccess(tmp_path, f"run-{paid.run}"):
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            run(tmp_path, paid)
        assert run(tmp_path, Echo())  # what costs nothing is not locked
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(tmp_path, paid) is None and not paid.asked
    monkeypatch.setenv("RANK", "0")
    assert run(tmp_path, paid) and len(paid.asked_ids) == len(QUESTIONS)


def test_the_same_run_under_another_name_asks_nothing(tmp_path):
    run(tmp_path)
    other = Echo()
    other.name = "other"
    assert {one.system for one in run(tmp_path, other)} == {"other"} and not other.asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"questions": [QUESTIONS[0], QUESTIONS[0]]}, "'q0'"), ({"batch_size": 0}, "1 or more")],
)
def test_what_cannot_be_run_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **settings)
    with pytest.raises(ValueError, match="has no answers"):
        read_predictions(tmp_path)


def tiny_responder() -> DiffusionResponder:
    return DiffusionResponder(tiny_model(initializer_range=0.4), tiny_processor(), SETTINGS)


def pictured() -> list[Question]:
    rng = np.random.default_rng(0)
    return [
        Question(one.id, one.text, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), one.reference)
        for one in QUESTIONS
    ]


def answer_as(rank: int, count: int, folder, gate, told) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    responder = tiny_responder()
    gate.wait(300)  # both at work at once
    found = answer_questions(pictured(), responder, folder, batch_size=3)
    told.put((rank, None if found is None else len(found)))


def test_two_processes_give_the_answers_and_scores_of_one(tmp_path):
    context = child_context()
    gate, told = context.Barrier(2), context.Queue()
    children = [
        context.Process(target=answer_as, args=(rank, 2, tmp_path / "two", gate, told)) for rank in range(2)
    ]
    for child in children:
        child.start()
    returned = dict(told.get(timeout=300) for _ in children)
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0]
    assert returned == {0: len(QUESTIONS), 1: None}  # the first waits for the other and has all
    one = run(tmp_path / "one", tiny_responder(), pictured(), batch_size=3)
    (about,) = read_manifest(tmp_path / "one").values()
    assert (about["device"], about["dtype"]) == ("cpu", "float32")
    (two,) = read_predictions(tmp_path / "two").values()
    assert one[0].run == two[0].run
    assert shape(one) == shape(two)
    assert len({answer.text for answer in one}) > 1
    assert {answer.passes for answer in one} == {4}
    assert OverlapJudge().judge(QUESTIONS, one) == OverlapJudge().judge(QUESTIONS, two)
    shares = [len(read_lines(path)) for path in (tmp_path / "two").glob(f"{STORE}-*.jsonl")]
    assert sorted(shares) == [5, 6]


def answer_slowly(folder, started) -> None:
    echo = Echo(delay=0.08)
    started.set()
    answer_questions([*QUESTIONS, *MORE], echo, folder, batch_size=2)


MORE = [Question(f"more {number}", "?" * (number % 9)) for number in range(60)]


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    rng = random.Random(3)
    context = child_context()
    counts = [0]
    for _ in range(4):
        started = context.Event()
        child = context.Process(target=answer_slowly, args=(tmp_path, started))
        child.start()
        assert started.wait(300)
        while child.is_alive() and len(Store(tmp_path, STORE)) <= counts[-1]:  # a busy machine takes its time
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        child.kill()
        child.join()
        assert child.exitcode == -9
        counts.append(len(Store(tmp_path, STORE)))
    assert counts == sorted(counts)
    echo = Echo()
    answers = run(tmp_path, echo, [*QUESTIONS, *MORE])
    assert len(answers) == len(echo.asked_ids) + counts[-1] == len(QUESTIONS) + len(MORE)
    assert 0 < counts[-1] < len(answers)
    lines = [line for path in tmp_path.glob(f"{STORE}-*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == len(answers) and all(map(json.loads, lines))
