"""A chat-completions endpoint: one call, tokens and prices. Knows no judge and no benchmark.

The openai client repeats what may pass (429, 5xx, time-outs, broken connections) and waits as long as a server's
Retry-After asks, up to two minutes. A call carries an idempotency key, so that a server which honours it charges once
for a call that was repeated because its answer never arrived. Bodies are given back as they came.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

Messages = Sequence[Mapping[str, Any]]
CHARACTERS_PER_TOKEN = 4  # of English, roughly; the endpoint's own counts are used once there are any
TOKENS_PER_MESSAGE = 4  # role and separators, roughly
_SPENT = "insufficient_quota"  # comes as 429, and waiting does not help


class EndpointError(RuntimeError):
    """An endpoint that refused a call, or failed it too often; the text says which and what to do."""


class ReplyError(ValueError):
    """A body that holds no answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how a model is asked; temperature is 0.

    Attributes:
        model: the name that the endpoint knows.
        base_url: e.g. "http://127.0.0.1:8000/v1"; None for the client's default.
        key_variable: environment variable that holds the key; it is never recorded.
        seed: sent along; whether it is honoured is the endpoint's affair.
        max_tokens: longest answer.
        timeout: seconds for one call.
        tries: how often a call is made before it counts as failed.
        concurrency: calls at the same time.

    Raises:
        ValueError: for a number out of range.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    seed: int = 0
    max_tokens: int = 512
    timeout: float = 120.0
    tries: int = 12
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name in ("max_tokens", "tries", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout is {self.timeout}; give a number of seconds above 0")


@dataclass(frozen=True)
class Completion:
    """A body, read: the text, and the tokens that the endpoint counted (None if it did not)."""

    text: str
    tokens_in: int | None
    tokens_out: int | None


@dataclass(frozen=True)
class Prices:
    """Price of a million tokens, in and out, in any one currency."""

    tokens_in: float
    tokens_out: float

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Return what so many tokens cost."""
        return (self.tokens_in * tokens_in + self.tokens_out * tokens_out) / 1e6


class ChatClient:
    """Makes calls to an endpoint; threads may share one.

    Raises:
        EndpointError: if a key is needed and the environment has none.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        key = os.environ.get(endpoint.key_variable)
        if not key and endpoint.base_url is None:
            raise EndpointError(
                f"the environment has no {endpoint.key_variable}; set it, or name the base URL of a server without keys"
            )
        self._endpoint = endpoint
        self._client = OpenAI(
            api_key=key or "none",
            base_url=endpoint.base_url,
            timeout=endpoint.timeout,
            max_retries=endpoint.tries - 1,
            http_client=DefaultHttpxClient(event_hooks={"response": [_stop_where_nothing_is_left]}),
        )

    def complete(self, messages: Messages, *, seed: int, idempotency_key: str) -> str:
        """Make a call, and return the body of the answer, unread.

        Args:
            messages: of the chat-completions protocol.
            seed: sent along.
            idempotency_key: the same for the same call, across tries and processes.

        Raises:
            EndpointError: if the call is refused, or failed at every try.
        """
        point = self._endpoint
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=point.model,
                messages=list(messages),
                temperature=0,
                seed=seed,
                max_tokens=point.max_tokens,
                extra_headers={"Idempotency-Key": idempotency_key},
            )
        except (APIConnectionError, APIStatusError) as error:  # a time-out is a connection error here
            if _may_pass(error):
                raise EndpointError(
                    f"{point.model} did not answer in {point.tries} tries, at last: {error}; run again later, what was "
                    "answered is kept"
                ) from error
            raise EndpointError(
                f"{point.model} refused the call: {error}; mend the call, the key or the account"
            ) from error
        return response.http_response.text


def read_completion(body: str) -> Completion:
    """Read text and token counts of a body.

    Raises:
        ReplyError: if it is no chat completion, or has no text.
    """
    try:
        data = json.loads(body)
        text = data["choices"][0]["message"]["content"]
        usage = data.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ReplyError(f"the body {body[:80]!r} is no chat completion") from error
    if not isinstance(text, str):
        raise ReplyError(f"the answer is {text!r}; a text is wanted")
    return Completion(text, *(count if type(count) is int else None for count in counts))


def estimate_tokens(messages: Messages) -> int:
    """Estimate tokens of messages of text from their characters."""
    characters = sum(len(message["content"]) for message in messages)
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)


def _may_pass(error: APIConnectionError | APIStatusError) -> bool:
    """Return whether the client repeated the call: the failure was not the caller's."""
    if isinstance(error, APIConnectionError):
        return True
    return error.code != _SPENT and (error.status_code in (408, 409, 429) or error.status_code >= 500)


def _stop_where_nothing_is_left(response: Any) -> None:
    """Tell the client not to repeat a call where an account is empty; it repeats every other 429."""
    if response.status_code == 429 and _SPENT in response.read().decode(errors="replace"):
        response.headers["x-should-retry"] = "false"
