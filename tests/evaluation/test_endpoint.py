"""One call: which failures are tried again, how long is waited, and what a body says."""

import json
import math
import time
from email.utils import formatdate

import pytest

from medv_lab.evaluation.endpoint import (
    ChatClient,
    Endpoint,
    EndpointError,
    ReplyError,
    estimate_tokens,
    read_completion,
)
from tests.evaluation.chat_server import GARBAGE, Books, serve

MESSAGES = ({"role": "user", "content": "x" * 400},)


def call(books: Books, **settings) -> str:
    return ChatClient(books.endpoint(**settings)).complete(MESSAGES, seed=0, idempotency_key="key")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529, 0])
def test_passing_failures_are_tried_again_and_so_often(status):
    with serve(Books(fails=1, failure=(status,), hang=0.3, retry_after="0.01")) as books:
        with pytest.raises(EndpointError, match="did not answer in 3 tries"):
            call(books, tries=3, timeout=0.1 if not status else 5)
        assert books.failures[status] == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "{}"), (400, "{}"), (404, "{}"), (429, '{"error": {"code": "insufficient_quota"}}')],
)
def test_a_refused_call_is_not_repeated(status, message):
    with serve(Books(fails=1, failure=(status,), message=message)) as books:
        with pytest.raises(EndpointError, match="refused"):
            call(books, timeout=5)
        assert books.failures[status] == 1


@pytest.mark.parametrize("asked", ["1", "0.8", "date"])
@pytest.mark.parametrize("status", [429, 529])
def test_a_server_s_wish_to_wait_is_followed(status, asked):
    wish = formatdate(math.ceil(time.time()) + 1, usegmt=True) if asked == "date" else asked
    with serve(Books(fails=1, failure=(status,), retry_after=wish)) as books:
        began = time.monotonic()
        with pytest.raises(EndpointError):
            call(books, tries=2, timeout=5)
        assert 0.7 < time.monotonic() - began < 4
        assert books.failures[status] == 2


def test_a_server_that_wants_minutes_is_not_waited_for():
    with serve(Books(fails=1, failure=(429,), retry_after="1000")) as books:
        with pytest.raises(EndpointError, match="run again later"):
            call(books, timeout=5)
        assert books.failures[429] == 1


def test_the_body_comes_back_as_it_was_sent():
    for body in GARBAGE:
        with serve(Books()) as books:
            books.bodies["key"] = body
            assert call(books) == body


def test_a_completion_has_text_and_the_tokens_that_were_counted():
    answer = {"choices": [{"message": {"content": "Yes."}}], "usage": {"prompt_tokens": 3}}
    assert read_completion(json.dumps(answer)) == ("Yes.", 3, None)


@pytest.mark.parametrize("body", [*GARBAGE[2:], "3", "null", '{"choices": [{"message": {"content": null}}]}'])
def test_a_body_without_text_is_an_error(body):
    with pytest.raises(ReplyError):
        read_completion(body)


def test_tokens_are_estimated_from_the_text():
    assert 100 <= estimate_tokens(MESSAGES) < 120


@pytest.mark.parametrize("name", ["max_tokens", "tries", "concurrency", "timeout"])
def test_impossible_endpoints_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Endpoint("m", **{name: 0})
