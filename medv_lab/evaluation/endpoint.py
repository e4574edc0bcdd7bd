"""A chat-completions endpoint: one call with retries, tokens and prices. Knows no judge and no benchmark.

Retries are ours, the client's own are off. A call carries an idempotency key, so that a server which honours it
charges once for a call that was repeated because its answer never arrived. Bodies are given back as they came.
"""

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openai import APIConnectionError, APIStatusError, OpenAI

Messages = Sequence[Mapping[str, Any]]
CHARACTERS_PER_TOKEN = 4  # of English, roughly; the endpoint's own counts are used once there are any
TOKENS_PER_MESSAGE = 4  # role and separators, roughly
_RETRIED = (408, 409, 429)  # and all from 500


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
        first_wait, longest_wait: seconds; the wait doubles from one try to the next, half of it random.
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
    tries: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name in ("max_tokens", "tries", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("timeout", "first_wait", "longest_wait"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number of seconds above 0")


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
        """What so many tokens cost."""
        return (self.tokens_in * tokens_in + self.tokens_out * tokens_out) / 1e6


class ChatClient:
    """Makes calls to an endpoint; threads may share one.

    Args:
        endpoint: where and how.
        sleep: waits between tries.
    """

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> None:
        key = os.environ.get(endpoint.key_variable)
        if not key and endpoint.base_url is None:
            raise EndpointError(
                f"the environment has no {endpoint.key_variable}; set it, or name the base URL of a server without keys"
            )
        self._endpoint, self._sleep = endpoint, sleep
        self._client = OpenAI(
            api_key=key or "none", base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0
        )

    def complete(self, messages: Messages, *, seed: int, idempotency_key: str) -> str:
        """The body of the answer, unread.

        Args:
            messages: of the chat-completions protocol.
            seed: sent along.
            idempotency_key: the same for the same call, across tries and processes.

        Raises:
            EndpointError: if the call is refused, or failed at every try (429, 5xx, time-out, broken connection).
        """
        point = self._endpoint
        for number in range(point.tries):
            try:
                response = self._client.chat.completions.with_raw_response.create(
                    model=point.model,
                    messages=list(messages),
                    temperature=0,
                    seed=seed,
                    max_tokens=point.max_tokens,
                    extra_headers={"Idempotency-Key": idempotency_key},
                )
                return response.http_response.text
            except (APIConnectionError, APIStatusError) as error:  # a time-out is a connection error here
                if not _is_passing(error):
                    raise EndpointError(
                        f"{point.model} refused the call: {error}; mend the call, the key or the account"
                    ) from error
                if number + 1 == point.tries:
                    raise EndpointError(
                        f"{point.model} failed {point.tries} times, at last with: {error}; run again later, what was "
                        "answered is kept"
                    ) from error
                self._sleep(self._wait(number, error))
        raise AssertionError("tries is at least 1")

    def _wait(self, number: int, error: APIConnectionError | APIStatusError) -> float:
        grown = min(self._endpoint.longest_wait, self._endpoint.first_wait * 2**number)
        wait = grown * (0.5 + 0.5 * random.random())
        asked = error.response.headers.get("retry-after", "") if isinstance(error, APIStatusError) else ""
        return max(wait, min(float(asked), self._endpoint.longest_wait)) if asked.isdigit() else wait


def read_completion(body: str) -> Completion:
    """Text and token counts of a body.

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
    """Tokens of messages of text, estimated from their characters."""
    characters = sum(len(message["content"]) for message in messages)
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)


def _is_passing(error: APIConnectionError | APIStatusError) -> bool:
    if isinstance(error, APIConnectionError):
        return True
    is_spent = error.code == "insufficient_quota"  # comes as 429, and waiting does not help
    return not is_spent and (error.status_code in _RETRIED or error.status_code >= 500)
