"""A model answers the benchmark through the same function as everyone's questions."""

import pytest

from medv_lab.config import GenerationSettings
from medv_lab.data.phantoms import render
from medv_lab.evaluation import runner
from medv_lab.evaluation.phantoms import IMAGE_SIZE, evaluate_phantoms, make_items, summarise
from medv_lab.evaluation.runner import limit_items, make_respond
from medv_lab.model.answering import ask
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=4, block_length=4, steps=4)


@pytest.fixture(scope="module")
def items():
    return make_items("test", 1)


def test_every_item_is_answered_as_it_would_be_alone(items):
    model, processor = tiny_model(initializer_range=0.4), tiny_processor()
    part = limit_items(items, 6)
    respond = make_respond(model, processor, SETTINGS, batch_size=4)
    results = evaluate_phantoms(part, respond)
    assert [result.question for result in results] == [item.question.text for item in part]
    picture = render(part[0].scene, size=IMAGE_SIZE)
    assert results[0].answer == ask(model, processor, picture, part[0].question.text, SETTINGS).text
    assert summarise(results, resamples=20).questions.sum() == 2 * len(part)  # families, and all


def test_an_interrupted_batch_gives_no_scores(monkeypatch):
    class Interrupted:
        is_complete, text = False, "half"

    monkeypatch.setattr(runner, "ask_many", lambda *args, **kwargs: [Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        make_respond(None, None)([None, None], ["a", "b"])


def test_a_limit_takes_a_part_of_everything_and_always_the_same(items):
    part = limit_items(items, 40)
    assert part == limit_items(items, 40)
    assert len(part) == 40
    assert len({item.question.family for item in part}) > 3
    assert [item for item in items if item in part] == part
    assert limit_items(items, None) == limit_items(items, len(items)) == items


def test_a_limit_below_one_is_an_error(items):
    with pytest.raises(ValueError, match="limit is 0"):
        limit_items(items, 0)
