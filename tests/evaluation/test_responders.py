"""Whatever answers: a model as it would alone, a file as it is written, an endpoint as it is asked."""

import base64
import io
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.evaluation import responders
from medv_lab.evaluation.endpoint import Endpoint, EndpointError, ReplyError
from medv_lab.evaluation.judges import OverlapJudge
from medv_lab.evaluation.responders import DiffusionResponder, EndpointResponder, FileResponder
from medv_lab.evaluation.runner import answer_questions
from medv_lab.generation import ask
from medv_lab.records import Question, answered
from medv_lab.store import Store
from tests.evaluation.chat_server import Books, serve
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=4, block_length=4, steps=4)


def texts(predictions):
    return [prediction.text for prediction in predictions]


def test_an_interrupted_batch_gives_no_answers(monkeypatch):
    class Interrupted:
        is_cancelled, text = True, "half"

    monkeypatch.setattr(responders, "ask_many", lambda *args, **kwargs: [Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        DiffusionResponder(tiny_model(), tiny_processor(), SETTINGS).answer([Question("a", "?")])


def test_the_diffusion_model_answers_as_it_would_alone_and_counts_its_passes():
    model, processor = tiny_model(initializer_range=0.4), tiny_processor()
    picture = np.zeros((32, 32, 3), np.uint8)
    questions = [Question("a", "Is it?"), Question("b", "What organ is shown?", picture)]
    responder = DiffusionResponder(model, processor, SETTINGS)
    found = responder.answer(questions)
    for question, prediction in zip(questions, found, strict=True):
        answer = ask(model, processor, question.image, question.text, SETTINGS)
        assert (prediction.question_id, prediction.text) == (question.id, answer.text)
        assert prediction.passes == answer.trace.forward_evaluations
        assert (prediction.system, prediction.run) == ("diffusion", responder.run)
        assert prediction.settings["steps"] == SETTINGS.steps
    guided = DiffusionResponder(model, processor, replace(SETTINGS, cfg_scale=1.0)).answer(questions)
    assert [one.passes for one in guided] == [2 * one.passes for one in found]


def test_a_run_follows_weights_settings_and_the_making_of_inputs():
    model = tiny_model()
    runs = [
        DiffusionResponder(model, tiny_processor(), SETTINGS).run,
        DiffusionResponder(model, tiny_processor(), replace(SETTINGS, steps=2)).run,
        DiffusionResponder(model, tiny_processor(system_prompt="Be brief."), SETTINGS).run,
    ]
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    runs.append(DiffusionResponder(model, tiny_processor(), SETTINGS).run)
    assert len(set(runs)) == 4


def test_a_file_answers_what_it_holds(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 7, "text": "A cyst."}\n{"question_id": 8, "text": "No."}\n')
    responder = FileResponder(path, "another system")
    assert texts(responder.answer([Question("8", "?"), Question("7", "?")])) == ["No.", "A cyst."]
    with pytest.raises(ValueError, match="'9'"):
        responder.answer([Question("9", "?")])
    path.write_text('{"question_id": 7, "text": "Another."}\n')
    assert FileResponder(path, "another system").run != responder.run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ('{"text": "x"}', "question_id"),
        ('{"question_id": 1, "text": "x"}', "twice"),
        ("3", "line 2"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 1, "text": "x"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        FileResponder(path, "system")


def test_an_endpoint_is_sent_question_and_picture():
    picture = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    with serve(Books(content="A cyst.", delay=0.01)) as books:
        responder = EndpointResponder(books.endpoint(concurrency=1, model="named"))
        assert (
            texts(responder.answer([Question("a", "What?", picture), Question("b", "Why?")]))
            == ["A cyst."] * 2
        )
        (shown, asked), (alone,) = (request["messages"][0]["content"] for request in books.requests)
        assert (asked["text"], alone["text"]) == ("What?", "Why?")
        sent = base64.b64decode(shown["image_url"]["url"].removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sent))), picture)
        assert books.url not in json.dumps([responder.model, responder.settings])
        books.garbles = 1
        with pytest.raises(ReplyError):
            for number in range(20):
                responder.answer([Question(str(number), f"{number}?")])


def test_lines_of_a_file_end_at_line_breaks_only(tmp_path):
    path = tmp_path / "answers.jsonl"
    text = "one\u2028two\u0085three\x0cfour"
    path.write_text(json.dumps({"question_id": 1, "text": text}, ensure_ascii=False) + "\r\n", newline="")
    assert texts(FileResponder(path, "s").answer([Question("1", "?")])) == [text]
    path.write_text("")
    with pytest.raises(ValueError, match="answers 0 questions"):
        FileResponder(path, "s").answer([Question("1", "?")])


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 100_000, "5", "null"])
def test_an_answer_that_is_no_text_names_its_line(tmp_path, text):
    path = tmp_path / "answers.jsonl"
    path.write_text(f'{{"question_id": 1, "text": {text}}}\n')
    with pytest.raises(ValueError, match="line 1 of answers.jsonl"):
        FileResponder(path, "s")


def test_a_pipe_is_no_file_of_answers(tmp_path):
    os.mkfifo(tmp_path / "answers.jsonl")
    with pytest.raises(ValueError, match="pipe"):
        FileResponder(tmp_path / "answers.jsonl", "s")


def test_what_is_sent_is_part_of_the_run():
    base = Endpoint("m", "http://127.0.0.1:1/v1")
    varied = (base, replace(base, seed=None), replace(base, temperature=1), replace(base, max_tokens=None))
    assert len({EndpointResponder(one).run for one in varied}) == 4
    assert EndpointResponder(base).settings.keys() == {"seed", "max_tokens", "temperature", "where"}


def test_a_refused_question_is_an_outcome_and_the_others_are_answered(tmp_path):
    questions = [Question(str(number), f"Is {number} odd?", reference="yes") for number in range(6)]
    with serve(Books(content="yes", filtered="Is 3 odd?")) as books:
        responder = EndpointResponder(books.endpoint(timeout=5))
        found = answer_questions(questions, responder, tmp_path)
        assert [one.text for one in found] == ["yes", "yes", "yes", "", "yes", "yes"]
        assert [one.question_id for one in found if one.refusal and "content filter" in one.refusal] == ["3"]
        assert answer_questions(questions, responder, tmp_path) == found and len(books.requests) == 6
    asked, rest = answered(questions, found)
    assert len(asked) == len(rest) == 5
    assert OverlapJudge().judge(questions, found).refused == ("3",)
    with pytest.raises(ValueError, match="all 1 questions were refused"):
        answered(questions[3:4], found[3:4])


@pytest.mark.parametrize("failure", [401, 200])
def test_a_failing_call_loses_no_answer_of_its_batch(tmp_path, failure):
    questions = [Question(str(number), f"Is {number} odd?") for number in range(6)]
    with serve(Books(content="yes")) as books:
        responder = EndpointResponder(books.endpoint(timeout=5, concurrency=1))
        decide = books.decide
        broken = (failure, "{}")
        books.decide = lambda key, request: broken if "Is 3" in str(request) else decide(key, request)
        with pytest.raises((EndpointError, ReplyError)):
            answer_questions(questions, responder, tmp_path)
        kept = len(Store(tmp_path, "predictions"))
        assert kept == (
            3 if failure == 401 else 5
        )  # a refused call ends the run, an unreadable answer does not
        books.decide = decide
        answer_questions(questions, responder, tmp_path)
        assert len(books.requests) == 6
