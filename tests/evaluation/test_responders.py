"""A model answers the benchmark through the same function as everyone's questions."""

import pytest

from medv_lab.config import GenerationSettings
from medv_lab.data.phantoms import render
from medv_lab.evaluation import responders
from medv_lab.evaluation.phantoms import IMAGE_SIZE, evaluate_phantoms, make_items, summarise
from medv_lab.evaluation.responders import make_respond
from medv_lab.model.answering import ask
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
