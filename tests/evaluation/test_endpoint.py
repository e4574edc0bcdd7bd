"""One call: which failures are tried again, how long is waited, and what a body says."""

import gzip
import json
import math
import threading
import time
from email.utils import formatdate

import pytest

from medv_lab.evaluation.endpoint import (
    MAX_BODY,
    ChatClient,
    Endpoint,
    EndpointError,
    FilteredError,
    RefusalError,
    ReplyError,
    estimate_tokens,
    read_completion,
    vary_endpoint,
)
from tests.evaluation.chat_server import FILTERED, GARBAGE, Books, serve, serve_raw

MESSAGES = ({"role": "user", "content": "x" * 400},)


def call(books: Books, **settings) -> str:
    endpoint = books.endpoint(**settings)
    return ChatClient(endpoint).complete(MESSAGES, seed=endpoint.seed, idempotency_key="key")


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


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, True, "4"])
@pytest.mark.parametrize("name", ["max_tokens", "tries", "timeout", "temperature"])
def test_numbers_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Endpoint("m", **{name: value})


@pytest.mark.parametrize("address", ["", "here", "http://", "ftp://a/v1", "http://a:b/v1", "http://[1/v1", 5])
def test_addresses_that_are_none_are_refused(address):
    with pytest.raises(ValueError, match="base_url is"):
        Endpoint("m", base_url=address)


def test_a_parameter_of_none_is_left_out():
    with serve(Books()) as books:
        call(books, timeout=5)
        call(books, timeout=5, seed=None, temperature=None, max_tokens=None, max_completion_tokens=9)
    sent = [set(request) - {"model", "messages"} for request in books.requests]
    assert sent == [{"seed", "temperature", "max_tokens"}, {"max_completion_tokens"}]


def test_parameters_are_given_as_texts():
    varied = vary_endpoint(Endpoint("m"), ["seed=none", "temperature=1", "max_completion_tokens=2_000"])
    assert varied == Endpoint("m", seed=None, temperature=1, max_completion_tokens=2000)
    for change in ("seed", "colour=1", "seed=x", "timeout=none", "seed=1.5", "model=x"):
        with pytest.raises(ValueError):
            vary_endpoint(Endpoint("m"), [change])


@pytest.mark.parametrize(("name", "only"), [("max_tokens", None), ("temperature", 1), ("seed", None)])
def test_a_parameter_that_a_model_does_not_take_is_named_with_what_to_do(name, only):
    with serve(Books(refused={name: only})) as books:
        with pytest.raises(EndpointError, match=f"{name}=None .*{name}=none"):
            call(books, timeout=5)
        call(books, timeout=5, **{name: None})


@pytest.mark.parametrize(
    "error",
    [
        FILTERED,
        {"code": "content_policy_violation", "message": ""},
        {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"type": "content_filter", "code": 400},
    ],
)
def test_a_content_filter_s_refusal_is_told_from_others(error):
    with serve(Books(fails=1, failure=(400,), message=json.dumps({"error": error}))) as books:
        with pytest.raises(FilteredError, match="content filter"):
            call(books, timeout=5)
        assert books.failures[400] == 1


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None}, "finish_reason": "content_filter"},
        {"message": {"content": "", "refusal": "I cannot help with that."}},
    ],
)
def test_a_refusal_in_place_of_an_answer_is_told_from_what_cannot_be_read(choice):
    with pytest.raises(RefusalError, match="content_filter|cannot help"):
        read_completion(json.dumps({"choices": [choice]}))


@pytest.mark.parametrize(
    "usage", [[1], {"prompt_tokens": -5}, {"prompt_tokens": 10**30}, {"prompt_tokens": True}]
)
def test_counts_that_are_none_are_not_believed(usage):
    answer = {"choices": [{"message": {"content": "8 9"}}], "usage": usage}
    assert read_completion(json.dumps(answer)) == ("8 9", None, None)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"choices":[{"message":'])
def test_a_body_nested_without_end_holds_no_answer(opening):
    with pytest.raises(ReplyError):
        read_completion(opening * 50_000)


KEY = 'sk-proj/Ab+9"x'


@pytest.mark.parametrize(
    "echo",
    [
        lambda key: key,
        lambda key: json.dumps(key)[1:-1],
        lambda key: "".join(f"\\u{ord(one):04X}" for one in key),
        lambda key: "".join(f"\\u{ord(one):04x}" if number % 2 else one for number, one in enumerate(key)),
        lambda key: key.replace("/", "\\/").replace('"', '\\"'),
        lambda key: "sk-proj%2FAb%2B9%22x",
        lambda key: "c2stcHJvai9BYis5Ing=",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_echoed_key_is_blanked_in_bodies_and_errors(monkeypatch, echo, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = f'{{"error": {{"message": "you are {echo(KEY)}"}}, "choices": []}}'
    books = Books(fails=status != 200, failure=(status,), message=body)
    books.bodies["key"] = body
    with serve(books):
        try:
            said = call(books, timeout=5, tries=1)
        except EndpointError as error:
            said = str(error)
            assert error.__suppress_context__  # the context shows the body as it came
    assert echo(KEY) not in said and KEY not in said
    assert "[key]" in said or "Error code" in said  # of a body that is no JSON errors show nothing


def test_a_word_that_stands_for_no_key_is_none(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serve(Books(content="none of them")) as books:
        assert "none of them" in call(books, timeout=5)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status):
    with serve(Books()) as other:

        def redirect(handler) -> None:
            handler.wfile.write(
                f"HTTP/1.1 {status} Go\r\nLocation: {other.url}/chat/completions\r\n\r\n".encode()
            )

        with serve_raw(redirect) as url, pytest.raises(EndpointError, match=f"redirects to .*{other.url}"):
            ChatClient(Endpoint("m", url, timeout=5)).complete(MESSAGES, seed=0, idempotency_key="key")
        assert other.requests == []


def drip(before: bytes, part: bytes):
    """Send a part again and again, for longer than anybody waits."""

    def respond(handler) -> None:
        handler.wfile.write(before)
        for _ in range(100):
            handler.wfile.write(part)
            time.sleep(0.05)

    return respond


@pytest.mark.parametrize(
    ("before", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n"),
        (b"HTTP/1.1 429 Wait\r\nContent-Length: 1000\r\n\r\n", b" "),
    ],
    ids=["length", "no length", "chunks", "headers", "error"],
)
def test_an_answer_in_drips_ends_at_the_time_out(before, part):
    with serve_raw(drip(before, part)) as url:
        began = time.monotonic()
        with pytest.raises(EndpointError, match="did not answer in 1 tries"):
            ChatClient(Endpoint("m", url, timeout=0.3, tries=1)).complete(
                MESSAGES, seed=0, idempotency_key="key"
            )
        assert time.monotonic() - began < 2
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]


@pytest.mark.parametrize("encoding", ["gzip", "identity", "br", "gzip, gzip"])
def test_a_body_without_end_ends_at_a_size(encoding):
    body = b" " * (2 * MAX_BODY)
    packed = gzip.compress(body) if "gzip" in encoding else body

    def respond(handler) -> None:
        handler.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode() + packed)

    with serve_raw(respond) as url, pytest.raises(EndpointError, match="4000000 bytes|is not unpacked"):
        ChatClient(Endpoint("m", url, timeout=20)).complete(MESSAGES, seed=0, idempotency_key="key")
