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


class EndpointError(ValueError):
    """An endpoint that refused a call, or failed it too often; the text says which and what to do."""


class ReplyError(ValueError):
    """A body that holds no answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how a model is asked; temperature is 0. The key is that of OPENAI_API_KEY, and is never recorded.

    Attributes:
        model: the name that the endpoint knows.
        base_url: e.g. "http://127.0.0.1:8000/v1"; None for the client's default.
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
    seed: int = 0
    max_tokens: int = 512
    timeout: float = 120.0
    tries: int = 12
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name in ("max_tokens", "tries", "concurrency", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")


class ChatClient:
    """Makes calls to an endpoint; threads may share one.

    Raises:
        EndpointError: if a key is needed and the environment has none.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        key = os.environ.get("OPENAI_API_KEY")
        if not key and endpoint.base_url is None:
            raise EndpointError(
                "the environment has no OPENAI_API_KEY; set it, or name the base URL of a server without keys"
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


def read_completion(body: str) -> tuple[str, int | None, int | None]:
    """Return the text of a body, and the tokens in and out that the endpoint counted (None if it did not).

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
    tokens_in, tokens_out = (count if type(count) is int else None for count in counts)
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


def _stop_where_nothing_is_left(response: Any) -> None:
    """Tell the client not to repeat a call where an account is empty; it repeats every other 429."""
    if response.status_code == 429 and _SPENT in response.read().decode(errors="replace"):
        response.headers["x-should-retry"] = "false"
