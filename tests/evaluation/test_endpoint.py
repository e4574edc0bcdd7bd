"""One call: which failures are tried again, how long is waited, and what a body says."""

import json

import pytest

from medv_lab.evaluation.endpoint import (
    ChatClient,
    Endpoint,
    EndpointError,
    Prices,
    ReplyError,
    estimate_tokens,
    read_completion,
)
from tests.evaluation.chat_server import GARBAGE, Books, serve

MESSAGES = ({"role": "user", "content": "x" * 400},)


def call(books: Books, waits: list[float], **settings) -> str:
    client = ChatClient(books.endpoint(**settings), sleep=waits.append)
    return client.complete(MESSAGES, seed=0, idempotency_key="key")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 0])
def test_passing_failures_are_tried_again_and_so_often(status):
    waits: list[float] = []
    with serve(Books(fails=1, failure=(status,), hang=0.3)) as books:
        with pytest.raises(EndpointError, match="failed 3 times"):
            call(books, waits, tries=3, timeout=0.1 if not status else 5)
        assert (len(waits), books.failures[status]) == (2, 3)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "{}"), (400, "{}"), (404, "{}"), (429, '{"error": {"code": "insufficient_quota"}}')],
)
def test_a_refused_call_is_not_repeated(status, message):
    waits: list[float] = []
    with serve(Books(fails=1, failure=(status,), message=message)) as books:
        with pytest.raises(EndpointError, match="refused"):
            call(books, waits)
        assert (waits, books.failures[status]) == ([], 1)


def test_waits_double_up_to_the_longest():
    waits: list[float] = []
    with serve(Books(fails=1, failure=(500,))) as books, pytest.raises(EndpointError):
        call(books, waits, first_wait=1, longest_wait=4, tries=5)
    assert len(waits) == 4
    assert all(full / 2 <= waited <= full for waited, full in zip(waits, (1, 2, 4, 4), strict=True))


@pytest.mark.parametrize(("asked", "waited"), [("3", 3), ("1000", 4)])
def test_a_server_s_wish_is_followed_within_the_longest_wait(asked, waited):
    waits: list[float] = []
    with serve(Books(fails=1, failure=(429,), retry_after=asked)) as books, pytest.raises(EndpointError):
        call(books, waits, first_wait=0.1, longest_wait=4, tries=2)
    assert waits == [waited]


def test_the_body_comes_back_as_it_was_sent():
    for body in GARBAGE:
        with serve(Books()) as books:
            books.bodies["key"] = body
            assert call(books, []) == body


def test_a_completion_has_text_and_the_tokens_that_were_counted():
    answer = {"choices": [{"message": {"content": "Yes."}}], "usage": {"prompt_tokens": 3}}
    completion = read_completion(json.dumps(answer))
    assert (completion.text, completion.tokens_in, completion.tokens_out) == ("Yes.", 3, None)


@pytest.mark.parametrize("body", [*GARBAGE[2:], "3", "null", '{"choices": [{"message": {"content": null}}]}'])
def test_a_body_without_text_is_an_error(body):
    with pytest.raises(ReplyError):
        read_completion(body)


def test_tokens_grow_with_the_text_and_cost_what_they_cost():
    assert 100 <= estimate_tokens(MESSAGES) < 120
    assert Prices(1, 10).cost(2e6, 1e5) == 3


@pytest.mark.parametrize("name", ["max_tokens", "tries", "concurrency", "timeout", "first_wait"])
def test_impossible_endpoints_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Endpoint("m", **{name: 0})
