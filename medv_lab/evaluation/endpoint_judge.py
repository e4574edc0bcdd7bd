"""A language model as the judge: its prompt, its calls, and what they cost.

Everything is in one journal, `reviews.jsonl`: a line before each call ("begun"), and the raw body of its answer
("reply") before anything is read of it, or that it failed. Scores are read from there at any time without a call.
A process that is killed loses at most the calls in flight; they are asked again under the same idempotency key, and
where a server charges for both, they are listed as lost and count as spent.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep as wait
from typing import Any

from medv_lab.evaluation.endpoint import (
    ChatClient,
    Endpoint,
    EndpointError,
    Messages,
    Prices,
    ReplyError,
    estimate_tokens,
    read_completion,
)
from medv_lab.evaluation.judges import HIGHEST, LOWEST, Case, Judgement, Verdict
from medv_lab.metrics.scoring import ScoreLineError, parse_scores
from medv_lab.store import FolderLock, Journal, read_lines

FILE = "reviews.jsonl"
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


class SpendingCapError(RuntimeError):
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
    key: str
    case: Case
    is_swapped: bool
    messages: Messages


@dataclass
class _State:
    """What the journal says: bodies by key, and calls that have no outcome."""

    bodies: dict[str, list[str]] = field(default_factory=dict)
    orphans: Counter = field(default_factory=Counter)
    estimates: dict[tuple[str, int], int] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any]) -> None:
        call = (record["key"], record["attempt"])
        if record["event"] == "begun":
            self.orphans[call] += 1
            self.estimates[call] = record["tokens_in"]
            return
        self.orphans[call] -= 1
        if record["event"] == "reply":
            self.bodies.setdefault(record["key"], []).append(record["body"])


class EndpointJudge:
    """Scores cases by asking a model behind an OpenAI-compatible endpoint, each question once.

    Args:
        endpoint: which model, and how it is called.
        folder: where the journal is.
        swap: judge each case a second time with the candidate's answer first.
        prices: for costs.
        cap: most that may be spent on all calls of the journal by this judge, in the currency of the prices.
        read_tries: how often a case is asked while its replies cannot be read; every time with another seed.
        sleep: waits between tries of a call.

    Raises:
        ValueError: for a cap without prices, or fewer than one try.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        folder: Path,
        *,
        swap: bool = False,
        prices: Prices | None = None,
        cap: float | None = None,
        read_tries: int = 3,
        sleep: Callable[[float], None] = wait,
    ) -> None:
        if cap is not None and prices is None:
            raise ValueError(f"the cap is {cap}, but no prices are given; give Prices, or no cap")
        if read_tries < 1:
            raise ValueError(f"read_tries is {read_tries}; give 1 or more")
        self._endpoint, self._folder, self._swap = endpoint, folder, swap
        self._prices, self._cap, self._read_tries, self._sleep = prices, cap, read_tries, sleep
        settings = (endpoint.base_url, endpoint.model, endpoint.seed, endpoint.max_tokens)
        self._identity = _digest(settings, INSTRUCTIONS, MATERIAL)
        self._guard = threading.Lock()

    @property
    def name(self) -> str:
        """The model, and a digest of endpoint, seed, length and prompt."""
        return f"{self._endpoint.model} ({self._identity[:8]})"

    def plan(self, cases: Sequence[Case]) -> Spending:
        """What `judge` would still ask: a dry run, without a call. Tokens are estimated from characters."""
        state = self._read()
        jobs = [job for job in self._jobs(cases) if self._is_open(state.bodies.get(job.key, []))]
        tokens_in = sum(estimate_tokens(job.messages) for job in jobs)
        tokens_out = len(jobs) * min(USUAL_REPLY, self._endpoint.max_tokens)
        return Spending(len(jobs), 0, 0, tokens_in, tokens_out, self._cost(tokens_in, tokens_out))

    def judge(self, cases: Sequence[Case]) -> Judgement:
        """Ask for what is missing, then read all scores.

        Raises:
            EndpointError: if a call was refused, or failed too often.
            SpendingCapError: if the cap allows no further call.
            JournalError: if another process is judging in this folder.
            ValueError: if two cases have the same id.
        """
        jobs = self._jobs(cases)
        with FolderLock(self._folder, "reviews"), Journal(self._folder / FILE) as journal:
            state = self._read()
            jobs = [job for job in jobs if self._is_open(state.bodies.get(job.key, []))]
            if jobs:
                self._ask_all(jobs, state, journal)
        return self.rescore(cases)

    def rescore(self, cases: Sequence[Case]) -> Judgement:
        """Scores of the replies that are there, without a call."""
        bodies = self._read().bodies
        verdicts, unscored = [], []
        for job in self._jobs(cases):
            scores = next(filter(None, map(_read_scores, bodies.get(job.key, []))), None)
            if scores is None:
                unscored.append(job.case.id)
                continue
            reference, candidate = reversed(scores) if job.is_swapped else scores
            verdicts.append(Verdict(job.case.id, self.name, reference, candidate, job.is_swapped))
        return Judgement(tuple(verdicts), tuple(dict.fromkeys(unscored)))

    def spending(self) -> Spending:
        """What this judge's calls in the journal have cost so far."""
        return self._spent(self._read())

    def _jobs(self, cases: Sequence[Case]) -> list[_Job]:
        twice = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
        if twice:
            raise ValueError(f"{len(twice)} case ids come twice, the first is {twice[0]!r}; ids must differ")
        orders = (False, True) if self._swap else (False,)
        return [self._job(case, is_swapped) for is_swapped in orders for case in cases]

    def _job(self, case: Case, is_swapped: bool) -> _Job:
        messages = make_messages(case, is_swapped)
        return _Job(_digest(self._identity, is_swapped, case.id, messages), case, is_swapped, messages)

    def _is_open(self, bodies: Sequence[str]) -> bool:
        return len(bodies) < self._read_tries and not any(map(_read_scores, bodies))

    def _read(self) -> _State:
        state = _State()
        for record in read_lines(self._folder / FILE):
            if record["judge"] == self._identity:
                state.take(record)
        return state

    def _ask_all(self, jobs: Sequence[_Job], state: _State, journal: Journal) -> None:
        client = ChatClient(self._endpoint, self._sleep)
        ended = threading.Event()  # by a failure: no thread begins a further call

        def ask(job: _Job) -> None:
            is_done = False
            try:
                while not ended.is_set() and self._is_open(state.bodies.get(job.key, [])):
                    self._ask_once(job, client, state, journal)
                is_done = True
            finally:
                if not is_done:
                    ended.set()

        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            try:
                for future in [pool.submit(ask, job) for job in jobs]:
                    future.result()
            finally:
                ended.set()

    def _ask_once(self, job: _Job, client: ChatClient, state: _State, journal: Journal) -> None:
        attempt = len(state.bodies.get(job.key, []))
        call = {"judge": self._identity, "key": job.key, "attempt": attempt}

        def note(**entry: Any) -> None:
            with self._guard:
                journal.append(call | entry)
                state.take(call | entry)

        with self._guard:
            self._check_cap(job, state)
            begun = call | {"event": "begun", "id": job.case.id, "tokens_in": estimate_tokens(job.messages)}
            journal.append(begun)
            state.take(begun)
        try:
            body = client.complete(
                job.messages,
                seed=self._endpoint.seed + attempt,
                idempotency_key=_digest(job.key, attempt),
            )
        except EndpointError as error:
            note(event="failed", error=str(error))
            raise
        note(event="reply", body=body)

    def _check_cap(self, job: _Job, state: _State) -> None:
        """Calls in flight are orphans as yet, and so count at their full price."""
        if self._cap is None:
            return
        spent = self._spent(state).cost
        following = self._cost(estimate_tokens(job.messages), self._endpoint.max_tokens)
        if spent + following > self._cap:
            raise SpendingCapError(
                f"{spent:.4f} of {self._cap:.4f} are spent or reserved, and the next call may cost {following:.4f}; "
                "raise the cap to go on, what was answered is kept"
            )

    def _spent(self, state: _State) -> Spending:
        tokens_in = tokens_out = unparsable = 0
        for key, bodies in state.bodies.items():
            for attempt, body in enumerate(bodies):
                counted = _count_tokens(body)
                tokens_in += state.estimates[key, attempt] if counted[0] is None else counted[0]
                tokens_out += self._endpoint.max_tokens if counted[1] is None else counted[1]
                unparsable += _read_scores(body) is None
        lost = sum(state.orphans.values())
        tokens_in += sum(state.estimates[call] * count for call, count in state.orphans.items())
        tokens_out += lost * self._endpoint.max_tokens
        calls = sum(map(len, state.bodies.values()))
        return Spending(calls, unparsable, lost, tokens_in, tokens_out, self._cost(tokens_in, tokens_out))

    def _cost(self, tokens_in: int, tokens_out: int) -> float | None:
        return None if self._prices is None else self._prices.cost(tokens_in, tokens_out)


def make_messages(case: Case, is_swapped: bool = False) -> Messages:
    """The prompt for a case: the reference answer first, or the candidate's if swapped."""
    answers = (case.candidate, case.reference) if is_swapped else (case.reference, case.candidate)
    material = MATERIAL.format(
        caption=case.caption or "(none)",
        context=case.context or "(none)",
        question=case.question,
        first=answers[0],
        second=answers[1],
    )
    return ({"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": material})


def _read_scores(body: str) -> tuple[float, float] | None:
    """Both scores in the order shown, or None if the body has none from 1 to 10."""
    try:
        scores = parse_scores(read_completion(body).text.strip())
    except (ReplyError, ScoreLineError):
        return None
    return scores if all(LOWEST <= score <= HIGHEST for score in scores) else None


def _count_tokens(body: str) -> tuple[int | None, int | None]:
    try:
        completion = read_completion(body)
    except ReplyError:
        return None, None
    return completion.tokens_in, completion.tokens_out


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
