"""Whatever answers: a model as it would alone, a file as it is written, an endpoint as it is asked."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.evaluation import responders
from medv_lab.evaluation.endpoint import ReplyError
from medv_lab.evaluation.responders import DiffusionResponder, EndpointResponder, FileResponder
from medv_lab.generation import ask
from medv_lab.records import Question
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
