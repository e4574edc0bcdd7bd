"""A language model as the judge: its prompt, its calls, and what they cost.

Everything is in one store, `reviews-*.jsonl`: a record before each call ("begun"), and the raw body of its answer
("reply") before anything is read of it, or that it failed. Scores are read from there at any time without a call.
A process that is killed loses at most the calls in flight; they are asked again under the same idempotency key, and
where a server charges for both, they are listed as lost and count as spent. What the endpoint's content filter refuses
is refused for good ("refused"): the run goes on without it, and so do means.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medv_lab.evaluation.endpoint import (
    ChatClient,
    Endpoint,
    EndpointError,
    FilteredError,
    Messages,
    RefusalError,
    ReplyError,
    estimate_tokens,
    read_completion,
)
from medv_lab.evaluation.judges import Judgement, Verdict, refused_among
from medv_lab.evaluation.score_lines import read_scores
from medv_lab.records import Prediction, Question, pair_up, require_distinct
from medv_lab.store import ExclusiveAccess, Store, content_key
from medv_lab.strategies.base import check_number

STORE = "reviews"
EVENTS = ("begun", "reply", "refused", "failed")
USUAL_REPLY = 150  # tokens; what a dry run expects of a reply with its reasons

INSTRUCTIONS = """\
You grade the answers of two assistants to a question about a biomedical picture. You do not see the picture. What \
you know of it is the caption of the figure, and sentences of the article that mention it; take both as true.

Judge how helpful, how relevant to the question and how accurate each answer is, and whether its level of detail \
fits. Give each assistant one score from 1 (worthless) to 10 (excellent). Neither the order of the answers nor \
their length is a merit in itself.

Begin your reply with a line that holds nothing but the two scores, first that of assistant 1, then that of \
assistant 2, with one space between them. From the next line on, give your reasons."""
MATERIAL = """\
[Caption]
{caption}

[Context]
{context}

[Question]
{question}

[Answer of assistant 1]
{first}

[Answer of assistant 2]
{second}"""


class SpendingCapError(ValueError):
    """The next call could cost more than is left; what was answered so far is kept."""


@dataclass(frozen=True)
class Spending:
    """Calls and tokens; `cost` is in the currency of the prices, None without prices.

    Attributes:
        calls: replies that came, or for a plan, that are needed if every reply can be read.
        unparsable: replies among them without two scores.
        lost: calls begun by a process that died before their answer was saved; their cost is assumed to be full.
        tokens_in, tokens_out: as the endpoint counted them, estimated where it did not.
        cost: of all that.
    """

    calls: int
    unparsable: int
    lost: int
    tokens_in: int
    tokens_out: int
    cost: float | None


@dataclass(frozen=True)
class _Job:
    """One answer that is to be judged in one order; `key` names it by its content."""

    key: str
    question_id: str
    is_swapped: bool
    messages: Messages


@dataclass
class _Calls:
    """One judge's calls, as its records in the store tell them.

    Attributes:
        bodies: replies to a job, in the order of its attempts.
        refused: jobs that the content filter refuses.
        begun: how often a call, a job and its attempt, was begun.
        open: how often it has no outcome: in flight, or lost with its process.
        estimates: tokens in of a call.
    """

    bodies: dict[str, list[str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    begun: Counter = field(default_factory=Counter)
    open: Counter = field(default_factory=Counter)
    estimates: dict[tuple[str, int], int] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any]) -> None:
        call = (record["job"], record["attempt"])
        if record["event"] == "begun":
            self.begun[call] += 1
            self.open[call] += 1
            self.estimates[call] = record["tokens_in"]
            return
        self.open[call] = max(self.open[call] - 1, 0)
        if record["event"] == "reply":
            self.bodies.setdefault(record["job"], []).append(record["body"])
        elif record["event"] == "refused":
            self.refused.add(record["job"])


class EndpointJudge:
    """Scores answers by asking a model behind an OpenAI-compatible endpoint, each question once.

    Args:
        endpoint: which model, and how it is called.
        folder: where the store is.
        swap: judge each answer a second time with the candidate's answer first.
        prices: of a million tokens, in and out, in any one currency; for costs.
        cap: most that may be spent on all calls of the store by this judge, in the currency of the prices.
        read_tries: how often an answer is judged anew while its replies cannot be read; every time with another seed.

    Raises:
        ValueError: for prices or a cap that are no amounts of money, a cap without prices, or one on an endpoint
            whose answers have no longest length.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        folder: Path,
        *,
        swap: bool = False,
        prices: tuple[float, float] | None = None,
        cap: float | None = None,
        read_tries: int = 3,
    ) -> None:
        if cap is not None and prices is None:
            raise ValueError(f"the cap is {cap}, but no prices are given; give prices, or no cap")
        if prices is not None:
            for name, price in zip(("price of tokens in", "price of tokens out"), prices, strict=True):
                check_number(name, price, float, 0)
        if cap is not None:
            check_number("cap", cap, float, 0)
            if endpoint.longest is None:
                raise ValueError(
                    f"the cap is {cap}, but nothing limits an answer, so that a call may cost any sum; give "
                    "max_tokens or max_completion_tokens, or no cap"
                )
        check_number("read_tries", read_tries, int, 1, 100)
        self._endpoint, self._folder, self._swap = endpoint, folder, swap
        self._prices, self._cap, self._read_tries = prices, cap, read_tries
        self._identity = content_key(_identify(endpoint), INSTRUCTIONS, MATERIAL)
        self.name = f"{endpoint.model} ({self._identity[:8]})"
        self._guard = threading.Lock()

    def plan(self, questions: Sequence[Question], predictions: Sequence[Prediction]) -> Spending:
        """Count what `judge` would still ask: a dry run, without a call. Tokens are estimated from characters."""
        calls = self._read(self._store())
        jobs = [job for job in self._jobs(questions, predictions) if self._is_open(job, calls)]
        tokens_in = sum(estimate_tokens(job.messages) for job in jobs)
        tokens_out = len(jobs) * min(USUAL_REPLY, self._endpoint.longest or USUAL_REPLY)
        return Spending(len(jobs), 0, 0, tokens_in, tokens_out, self._cost(tokens_in, tokens_out))

    def judge(self, questions: Sequence[Question], predictions: Sequence[Prediction]) -> Judgement:
        """Ask for what is missing, then read all scores.

        Raises:
            EndpointError: if a call was refused, or failed too often.
            SpendingCapError: if the cap allows no further call.
            StoreError: if another process is judging in this folder: both would pay for the same call.
            ValueError: if two questions have the same id.
        """
        jobs = self._jobs(questions, predictions)
        with ExclusiveAccess(self._folder, STORE), self._store() as store:
            calls = self._read(store)
            jobs = [job for job in jobs if self._is_open(job, calls)]
            if jobs:
                self._ask_all(jobs, calls, store)
        return self.rescore(questions, predictions)

    def rescore(self, questions: Sequence[Question], predictions: Sequence[Prediction]) -> Judgement:
        """Read the scores of the replies that are there, without a call."""
        calls = self._read(self._store())
        verdicts, (unscored, refused) = [], map(list, refused_among(predictions))
        for job in self._jobs(questions, predictions):
            bodies = calls.bodies.get(job.key, [])
            scores = next(filter(None, map(_read_scores, bodies)), None)
            if scores is None:
                unscored.append(job.question_id)
                if job.key in calls.refused or any(map(_is_refusal, bodies)):
                    refused.append(job.question_id)
                continue
            reference, candidate = reversed(scores) if job.is_swapped else scores
            verdicts.append(Verdict(job.question_id, self.name, reference, candidate, job.is_swapped))
        return Judgement(tuple(verdicts), tuple(dict.fromkeys(unscored)), tuple(dict.fromkeys(refused)))

    def spending(self) -> Spending:
        """Count what this judge's calls in the store have cost so far."""
        return self._spent(self._read(self._store()))

    def _store(self) -> Store:
        return Store(self._folder, STORE, _check_record)

    def _jobs(self, questions: Sequence[Question], predictions: Sequence[Prediction]) -> list[_Job]:
        require_distinct(questions)
        pairs = [pair for pair in pair_up(questions, predictions) if pair[1].refusal is None]
        jobs = []
        for is_swapped in (False, True) if self._swap else (False,):
            for question, prediction in pairs:
                messages = make_messages(question, prediction, is_swapped)
                key = content_key(self._identity, is_swapped, question.id, messages)
                jobs.append(_Job(key, question.id, is_swapped, messages))
        return jobs

    def _is_open(self, job: _Job, calls: _Calls) -> bool:
        bodies = calls.bodies.get(job.key, [])
        has_outcome = job.key in calls.refused or any(_read_scores(one) or _is_refusal(one) for one in bodies)
        return len(bodies) < self._read_tries and not has_outcome

    def _read(self, store: Store) -> _Calls:
        calls = _Calls()
        for key in store:
            if store[key]["judge"] == self._identity:
                calls.take(store[key])
        return calls

    def _ask_all(self, jobs: Sequence[_Job], calls: _Calls, store: Store) -> None:
        client = ChatClient(self._endpoint)
        ended = threading.Event()  # by a failure or an interrupt: no thread begins a further call

        def ask(job: _Job) -> None:
            while not ended.is_set() and self._is_open(job, calls):
                self._ask_once(job, client, calls, store)

        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            futures = [pool.submit(ask, job) for job in jobs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                ended.set()
        for future in futures:
            future.result()

    def _ask_once(self, job: _Job, client: ChatClient, calls: _Calls, store: Store) -> None:
        attempt, seed = len(calls.bodies.get(job.key, [])), self._endpoint.seed

        def note(event: str, **more: Any) -> None:
            record = {"judge": self._identity, "job": job.key, "attempt": attempt, "event": event, **more}
            store.put(content_key(job.key, attempt, event, calls.begun[job.key, attempt]), record)
            calls.take(record)

        # On the disk before the call: whatever happens now, it counts as spent.
        with self._guard:
            self._check_cap(job, calls)
            note("begun", id=job.question_id, tokens_in=estimate_tokens(job.messages))
        try:
            body = client.complete(
                job.messages,
                seed=None if seed is None else seed + attempt,
                idempotency_key=content_key(job.key, attempt),
            )
        except FilteredError as error:
            with self._guard:
                note("refused", error=str(error))
            return
        except EndpointError as error:
            with self._guard:
                note("failed", error=str(error))
            raise
        # On the disk before it is read: whatever is wrong with it, it was paid for.
        with self._guard:
            note("reply", body=body)

    def _check_cap(self, job: _Job, calls: _Calls) -> None:
        """Refuse a call that could pass the cap; calls in flight have no outcome yet and count at their full price."""
        if self._cap is None:
            return
        spent = self._spent(calls).cost
        following = self._cost(estimate_tokens(job.messages), self._endpoint.longest)
        if spent + following > self._cap:
            raise SpendingCapError(
                f"{spent:.4f} of {self._cap:.4f} are spent or reserved, and the next call may cost {following:.4f}; "
                "raise the cap to go on, what was answered is kept"
            )

    def _spent(self, calls: _Calls) -> Spending:
        tokens_in = tokens_out = unparsable = 0
        longest = self._endpoint.longest or USUAL_REPLY  # without a limit there is no cap either
        for key, bodies in calls.bodies.items():
            for attempt, body in enumerate(bodies):
                try:
                    _, counted_in, counted_out = read_completion(body)
                except ReplyError:
                    counted_in = counted_out = None
                tokens_in += calls.estimates.get((key, attempt), 0) if counted_in is None else counted_in
                tokens_out += longest if counted_out is None else counted_out
                unparsable += _read_scores(body) is None
        lost = sum(calls.open.values())
        tokens_in += sum(calls.estimates[call] * count for call, count in calls.open.items() if count)
        tokens_out += lost * longest
        replies = sum(map(len, calls.bodies.values()))
        return Spending(replies, unparsable, lost, tokens_in, tokens_out, self._cost(tokens_in, tokens_out))

    def _cost(self, tokens_in: int, tokens_out: int) -> float | None:
        if self._prices is None:
            return None
        return (self._prices[0] * tokens_in + self._prices[1] * tokens_out) / 1e6


def make_messages(question: Question, prediction: Prediction, is_swapped: bool = False) -> Messages:
    """Write the prompt for one answer: the reference first, or the candidate's answer if swapped."""
    first, second = question.reference, prediction.text
    if is_swapped:
        first, second = second, first
    material = MATERIAL.format(
        caption=question.caption or "(none)",
        context=question.context or "(none)",
        question=question.text,
        first=first,
        second=second,
    )
    return ({"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": material})


def _identify(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return what tells one judge from another: where it is, and all that is sent to it."""
    usual = endpoint.temperature == 0 and endpoint.max_completion_tokens is None
    sent = (endpoint.base_url, endpoint.model, endpoint.seed, endpoint.max_tokens)
    # a call that leaves the newer parameters as they have always been has the name that it has always had
    return sent if usual else (*sent, endpoint.temperature, endpoint.max_completion_tokens)


def _check_record(record: Mapping[str, Any]) -> None:
    """Raise a KeyError or ValueError for a line of the store that no judge has written."""
    texts = [record["judge"], record["job"], record["body"] if record["event"] == "reply" else ""]
    counts = [record["attempt"], record["tokens_in"] if record["event"] == "begun" else 0]
    if record["event"] not in EVENTS or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"the event is {record['event']!r:.40}, or a text is none")
    if not all(type(one) is int and one >= 0 for one in counts):
        raise ValueError("a count is none")


def _read_scores(body: str) -> tuple[float, float] | None:
    """Read both scores in the order shown, or None if the body has none from 1 to 10."""
    try:
        return read_scores(read_completion(body)[0])
    except ReplyError:
        return None


def _is_refusal(body: str) -> bool:
    try:
        read_completion(body)
    except RefusalError:
        return True
    except ReplyError:
        pass
    return False
