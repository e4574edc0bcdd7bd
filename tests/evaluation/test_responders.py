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
from medv_lab.evaluation.responders import (
    DiffusionResponder,
    EndpointResponder,
    FileResponder,
    Query,
    Reply,
    make_respond,
)
from medv_lab.generation import ask
from medv_lab.phantoms.benchmark import IMAGE_SIZE, evaluate_phantoms, make_items, summarise
from medv_lab.phantoms.rendering import render
from tests.evaluation.chat_server import Books, serve
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=4, block_length=4, steps=4)


def test_every_item_is_answered_as_it_would_be_alone():
    model, processor = tiny_model(initializer_range=0.4), tiny_processor()
    part = make_items("test", 1)[::20]
    respond = make_respond(model, processor, SETTINGS, batch_size=4)
    results = evaluate_phantoms(part, respond)
    assert [result.question for result in results] == [item.question.text for item in part]
    picture = render(part[0].scene, size=IMAGE_SIZE)
    assert results[0].answer == ask(model, processor, picture, part[0].question.text, SETTINGS).text
    assert summarise(results).questions.sum() == 2 * len(part)  # families, and all


def test_an_interrupted_batch_gives_no_scores(monkeypatch):
    class Interrupted:
        is_complete, text = False, "half"

    monkeypatch.setattr(responders, "ask_many", lambda *args, **kwargs: [Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        make_respond(None, None)([None, None], ["a", "b"])
    with pytest.raises(KeyboardInterrupt):
        DiffusionResponder(tiny_model(), tiny_processor(), SETTINGS).answer([Query("a", "?")])


def test_the_diffusion_model_answers_as_it_would_alone_and_counts_its_passes():
    model, processor = tiny_model(initializer_range=0.4), tiny_processor()
    queries = [Query("a", "Is it?"), Query("b", "What organ is shown?", np.zeros((32, 32, 3), np.uint8))]
    replies = DiffusionResponder(model, processor, SETTINGS).answer(queries)
    for query, reply in zip(queries, replies, strict=True):
        answer = ask(model, processor, query.image, query.text, SETTINGS)
        assert reply == Reply(answer.text, answer.trace.forward_evaluations)
    guided = DiffusionResponder(model, processor, replace(SETTINGS, cfg_scale=1.0)).answer(queries)
    assert [reply.passes for reply in guided] == [2 * reply.passes for reply in replies]


def test_identity_follows_weights_settings_and_the_making_of_inputs():
    model = tiny_model()
    identities = [
        DiffusionResponder(model, tiny_processor(), SETTINGS).identity,
        DiffusionResponder(model, tiny_processor(), replace(SETTINGS, steps=2)).identity,
        DiffusionResponder(model, tiny_processor(system_prompt="Be brief."), SETTINGS).identity,
    ]
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    identities.append(DiffusionResponder(model, tiny_processor(), SETTINGS).identity)
    assert len({json.dumps(identity) for identity in identities}) == 4


def test_a_file_answers_what_it_holds(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 7, "text": "A cyst."}\n{"question_id": 8, "text": "No."}\n')
    responder = FileResponder(path, "another system")
    assert responder.answer([Query("8", "?"), Query("7", "?")]) == [Reply("No."), Reply("A cyst.")]
    with pytest.raises(ValueError, match="'9'"):
        responder.answer([Query("9", "?")])
    before = responder.identity
    path.write_text('{"question_id": 7, "text": "Another."}\n')
    assert FileResponder(path, "another system").identity != before


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
        assert responder.answer([Query("a", "What?", picture), Query("b", "Why?")]) == [Reply("A cyst.")] * 2
        (shown, asked), (alone,) = (request["messages"][0]["content"] for request in books.requests)
        assert (asked["text"], alone["text"]) == ("What?", "Why?")
        sent = base64.b64decode(shown["image_url"]["url"].removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sent))), picture)
        assert books.url not in json.dumps(responder.identity)
        books.garbles = 1
        with pytest.raises(ReplyError):
            for number in range(20):
                responder.answer([Query(str(number), f"{number}?")])
