"""A chat-completions endpoint: one call, tokens and prices. Knows no judge and no benchmark.

The openai client repeats what may pass (429, 5xx, time-outs, broken connections) and waits as long as a server's
Retry-After asks, up to two minutes. A call carries an idempotency key, so that a server which honours it charges once
for a call that was repeated because its answer never arrived. Bodies are given back as they came, but for the API key,
which is blanked wherever a server echoes it.
"""

import base64
import json
import math
import os
import re
import socket
import threading
from ast import literal_eval
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

from medv_lab.limits import parse_json
from medv_lab.strategies.base import check_number

Messages = Sequence[Mapping[str, Any]]
CHARACTERS_PER_TOKEN = 4  # of English, roughly; the endpoint's own counts are used once there are any
TOKENS_PER_MESSAGE = 4  # role and separators, roughly
MAX_BODY = 4_000_000  # bytes of an answer, unpacked
MAX_COUNT = 10**9  # tokens that an endpoint may say it counted
DAY = 86_400.0
PARAMETERS = ("temperature", "seed", "max_tokens", "max_completion_tokens")
_ENCODINGS = ("", "identity", "gzip", "deflate")  # unpack to at most a thousand times as much
_SPENT = "insufficient_quota"  # comes as 429, and waiting does not help
_FILTERED = re.compile(
    "content_?filter|content_?policy|content_?moderation|responsibleaipolicy|data_inspection_failed", re.I
)
_UNSUPPORTED = re.compile("unsupported|unrecogni[sz]ed|not supported|unknown|extra inputs", re.I)
_SHORTEST_KEY = 6  # characters; shorter ones ("none", "EMPTY") are no secrets, and are words of answers
_SHOWN = 500


class EndpointError(ValueError):
    """An endpoint that refused a call, or failed it too often; the text says which and what to do."""


class FilteredError(EndpointError):
    """A call that the endpoint's content filter refuses, at every try."""


class ReplyError(ValueError):
    """A body that holds no answer."""


class RefusalError(ReplyError):
    """A body that says that the model, or a filter on its answers, refuses to answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how a model is asked. The key is that of OPENAI_API_KEY, and is never recorded.

    Attributes:
        model: the name that the endpoint knows.
        base_url: e.g. "http://127.0.0.1:8000/v1"; None for the client's default.
        seed: sent along; whether it is honoured is the endpoint's affair. None leaves it out.
        max_tokens: longest answer; None leaves it out.
        temperature: None leaves it out.
        max_completion_tokens: longest answer with the model's reasoning, which some models take in place of
            max_tokens; None leaves it out.
        timeout: seconds for one call, from the connection to the last byte.
        tries: how often a call is made before it counts as failed.
        concurrency: calls at the same time.

    Raises:
        ValueError: for a number out of range, or an address that is none.
    """

    model: str
    base_url: str | None = None
    seed: int | None = 0
    max_tokens: int | None = 512
    temperature: float | None = 0
    max_completion_tokens: int | None = None
    timeout: float = 120.0
    tries: int = 12
    concurrency: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"model is {self.model!r:.80}; give the name that the endpoint knows")
        for name, kind, least, most in (
            ("seed", int, -(2**63), 2**63 - 1),
            ("temperature", float, 0, 100),
            ("max_tokens", int, 1, MAX_COUNT),
            ("max_completion_tokens", int, 1, MAX_COUNT),
        ):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), kind, least, most)
        for name in ("tries", "concurrency"):
            check_number(name, getattr(self, name), int, 1, 1000)
        check_number("timeout", self.timeout, float, 0.001, DAY)
        if self.base_url is not None:
            _check_address(self.base_url)

    @property
    def longest(self) -> int | None:
        """Tokens of the longest answer; None where nothing limits it."""
        limits = [one for one in (self.max_tokens, self.max_completion_tokens) if one is not None]
        return min(limits, default=None)

    def parameters(self) -> dict[str, Any]:
        """Return what is sent besides model and messages, without what is None."""
        values = {name: getattr(self, name) for name in PARAMETERS}
        return {name: value for name, value in values.items() if value is not None}


def vary_endpoint(endpoint: Endpoint, changes: Sequence[str]) -> Endpoint:
    """Return an endpoint with other parameters, each "name=value"; the value none leaves it out of the call.

    Raises:
        ValueError: for an unknown name, or a value that is no number.
    """
    allowed = (*PARAMETERS, "timeout", "tries", "concurrency")
    values = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in allowed:
            raise ValueError(f"{change!r} is no parameter=value of an endpoint; it has {', '.join(allowed)}")
        try:
            values[name] = None if text.lower() == "none" else literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{change!r} gives no number; write it so, or none to leave it out") from error
    return replace(endpoint, **values)


class ChatClient:
    """Makes calls to an endpoint; threads may share one.

    Raises:
        EndpointError: if a key is needed and the environment has none.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and endpoint.base_url is None:
            raise EndpointError(
                "the environment has no OPENAI_API_KEY; set it, or name the base URL of a server without keys"
            )
        self._endpoint, self._secret = endpoint, _secret_of(key)
        self._client = OpenAI(
            api_key=key or "none",
            base_url=endpoint.base_url,
            timeout=endpoint.timeout,
            max_retries=endpoint.tries - 1,
            http_client=_BoundedClient(endpoint.timeout),
        )

    def complete(self, messages: Messages, *, seed: int | None, idempotency_key: str) -> str:
        """Make a call, and return the body of the answer, unread; an API key in it is blanked.

        Args:
            messages: of the chat-completions protocol.
            seed: sent along in place of the endpoint's; None leaves it out.
            idempotency_key: the same for the same call, across tries and processes.

        Raises:
            FilteredError: if the endpoint's content filter refuses the messages.
            EndpointError: if the call is refused for another reason, or failed at every try.
        """
        point = self._endpoint
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=point.model,
                messages=list(messages),
                extra_headers={"Idempotency-Key": idempotency_key},
                **replace(point, seed=seed).parameters(),
            )
        except (APIConnectionError, APIStatusError) as error:  # a time-out is a connection error here
            # without the cause, which would show the key that is blanked here
            raise self._explain(error) from None
        return self._blank(response.http_response.text)

    def _explain(self, error: APIConnectionError | APIStatusError) -> EndpointError:
        point, cause = self._endpoint, "" if error.__cause__ is None else f" ({error.__cause__})"
        said = self._blank(f"{error}{cause if isinstance(error, APIConnectionError) else ''}")[:_SHOWN]
        if _may_pass(error):
            return EndpointError(
                f"{point.model} did not answer in {point.tries} tries, at last: {said}; run again later, what was "
                "answered is kept"
            )
        if _is_filtered(error):
            return FilteredError(f"{point.model} refused the question by its content filter: {said}")
        advice = "mend the call, the key or the account"
        named = [name for name in point.parameters() if name in said and _UNSUPPORTED.search(said)]
        if named:
            advice = (
                f"leave out what the model does not take: {named[-1]}=None (command line: {named[-1]}=none)"
            )
        return EndpointError(f"{point.model} refused the call: {said}; {advice}")

    def _blank(self, text: str) -> str:
        return text if self._secret is None else self._secret.sub("[key]", text)


class _BoundedClient(DefaultHttpxClient):
    """Ends a call when its time is up and its body when it is too large, and follows no redirect.

    The client's own time-out is for each read, so that a server which sends a byte now and then would never end it; and
    a packed body of a few kilobytes may unpack to any size.
    """

    def __init__(self, seconds: float) -> None:
        # a connection of its own for each call, so that it can be cut
        super().__init__(follow_redirects=False, headers={"Accept-Encoding": "gzip", "Connection": "close"})
        self._seconds = seconds

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request, and return its answer, read; one that is cut off is a broken connection."""
        streams: list[Any] = []
        request.extensions = {**request.extensions, "trace": lambda *event: _note_stream(streams, *event)}
        is_late = threading.Event()

        def cut() -> None:
            is_late.set()
            for stream in reversed(streams):
                _shut(stream)

        watch = threading.Timer(self._seconds, cut)
        watch.daemon = True
        watch.start()
        try:
            response = super().send(request, **{**options, "stream": True, "follow_redirects": False})
            with closing(response):
                return self._read(response, request, is_late)
        finally:
            watch.cancel()

    def _read(self, response: Any, request: Any, is_late: threading.Event) -> Any:
        """Return an answer with its body, unpacked; one that is refused says why, as a refusal of the call."""
        headers, status = {"Content-Type": "application/json"}, response.status_code
        for name in ("Content-Type", "Retry-After", "Retry-After-Ms", "X-Should-Retry"):
            if name in response.headers:
                headers[name] = response.headers[name]
        body, fault = bytearray(), None
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if "Location" in response.headers:
            place = response.headers["Location"]
            fault = f"it redirects to {place!r}, and nothing is followed; give the base URL that is meant"
        elif encoding not in _ENCODINGS:
            fault, status = f"its body is packed as {encoding!r}, which is not unpacked", 415
        else:
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_BODY:
                    fault, status = f"its body has more than {MAX_BODY} bytes", 413
                    break
        if is_late.is_set():  # a body whose length nobody told looks whole where it was cut
            fault, status = f"no whole answer came in {self._seconds} seconds", 408
        if fault is not None:
            body = json.dumps({"error": {"message": fault}}).encode()
        if (fault is not None and status != 408) or (status == 429 and _SPENT.encode() in body):
            headers["X-Should-Retry"] = "false"
        return type(response)(status, headers=headers, content=bytes(body), request=request)


def _note_stream(streams: list[Any], event: str, info: Mapping[str, Any]) -> None:
    """Keep the stream of a connection that was made, or put into TLS."""
    if event.endswith(("connect_tcp.complete", "start_tls.complete")):
        streams.append(info["return_value"])


def _shut(stream: Any) -> None:
    """End a connection under whoever waits for its bytes."""
    with suppress(AttributeError, OSError):  # it is closed already, or has gone over into TLS
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def read_completion(body: str) -> tuple[str, int | None, int | None]:
    """Return the text of a body, and the tokens in and out that the endpoint counted (None if it did not).

    Raises:
        RefusalError: if it says that the model, or a filter on what it writes, refuses to answer.
        ReplyError: if it is no chat completion, or has no text.
    """
    try:
        data = parse_json(body)
        choice = data["choices"][0]
        text, usage = choice["message"]["content"], data.get("usage")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ReplyError(f"the body {body[:80]!r} is no chat completion") from error
    if not text and (choice.get("finish_reason") == "content_filter" or choice["message"].get("refusal")):
        raise RefusalError(
            f"no answer is given: {choice['message'].get('refusal') or 'content_filter'!r:.200}"
        )
    if not isinstance(text, str):
        raise ReplyError(f"the answer is {text!r:.80}; a text is wanted")
    usage = usage if isinstance(usage, Mapping) else {}
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    tokens_in, tokens_out = (
        count if type(count) is int and 0 <= count <= MAX_COUNT else None for count in counts
    )
    return text, tokens_in, tokens_out


def estimate_tokens(messages: Messages) -> int:
    """Estimate tokens of messages of text from their characters."""
    characters = sum(len(message["content"]) for message in messages)
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)


def _may_pass(error: APIConnectionError | APIStatusError) -> bool:
    """Return whether the client repeated the call: the failure was not the caller's."""
    if isinstance(error, APIConnectionError):
        return True
    return error.code != _SPENT and (error.status_code in (408, 409, 429) or error.status_code >= 500)


def _is_filtered(error: APIConnectionError | APIStatusError) -> bool:
    """Return whether a content filter refused the call, as the codes in the body say, however deep they stand."""
    found = [getattr(error, "body", None)]
    while found:
        one = found.pop()
        if isinstance(one, Mapping):
            codes = [one[name] for name in ("code", "type") if isinstance(one.get(name), str)]
            if any(map(_FILTERED.search, codes)):
                return True
            found += one.values()
    return False


def _secret_of(key: str) -> re.Pattern[str] | None:
    """Return what finds a key in a text: as it is, with any of its characters escaped as JSON can, or coded."""
    if len(key) < _SHORTEST_KEY:
        return None
    escaped = "".join(rf"(?:\\{{0,2}}{re.escape(one)}|\\+u(?i:{ord(one):04x}))" for one in key)
    coded = (quote(key, safe=""), base64.b64encode(key.encode()).decode().rstrip("="))
    return re.compile("|".join([escaped, *map(re.escape, coded)]))


def _check_address(address: str) -> None:
    """Raise a ValueError for what is no address of a server."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        is_address = False
    if not is_address:
        raise ValueError(f"base_url is {address!r:.80}; give an address such as 'http://127.0.0.1:8000/v1'")
