"""Repetition in answers: how much, in which spans, and when and where a sampler committed it.

The numbers of a sequence take any tokens: ids, pieces or words. All are defined on empty and one-token answers.
Those of a trace read its tokens; no model and no tokenizer is needed.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import pandas as pd

from medv_lab.metrics.scoring import ngrams


class Trace(Protocol):
    """The arrays of a `SampleTrace` that are read here: an answer's commits, N of them, over L positions."""

    step: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    confidence: np.ndarray
    stops: np.ndarray
    first_stop: int
    gen_length: int
    mask_token_id: int
    pieces: Mapping[int, bytes]

    @property
    def forward_evaluations(self) -> int:
        """Return the number of forward passes."""

    def replay(self, step: int | None = None) -> np.ndarray:
        """Return the token ids after a pass, (L,)."""

    def final_commits(self) -> np.ndarray:
        """Return the commit that filled each position last, (L,); -1 where none did."""

    def piece(self, token_id: int) -> str:
        """Return the text of a token."""


@dataclass(frozen=True)
class Repetition:
    """Repetition of one answer.

    Attributes:
        length: tokens. Distinct-n falls with it and rep-n rises: show it beside them.
        adjacent_duplicates, rep_4, distinct_1: `adjacent_duplicates`, `rep_n` and `distinct_n`.
        looped: share of tokens in looped spans, [0, 1].
    """

    length: int
    adjacent_duplicates: float
    rep_4: float
    distinct_1: float
    looped: float


def measure_repetition(tokens: Sequence[Hashable]) -> Repetition:
    """Measure one sequence of ids, pieces or words."""
    in_loop = np.zeros(len(tokens), bool)
    for start, end, _ in looped_spans(tokens):
        in_loop[start:end] = True
    return Repetition(
        length=len(tokens),
        adjacent_duplicates=adjacent_duplicates(tokens),
        rep_4=rep_n(tokens, 4),
        distinct_1=distinct_n(tokens, 1),
        looped=float(in_loop.mean()) if len(tokens) else 0.0,
    )


def adjacent_duplicates(tokens: Sequence[Hashable]) -> float:
    """Return the share of neighbouring pairs that are the same token twice, [0, 1]; 0 below two tokens."""
    if len(tokens) < 2:
        return 0.0
    return sum(left == right for left, right in pairwise(tokens)) / (len(tokens) - 1)


def rep_n(tokens: Sequence[Hashable], n: int) -> float:
    """Return the share of n-grams that occurred before, 1 - distinct / all, [0, 1]; 0 if there is no n-gram."""
    return 1 - distinct_n(tokens, n) if len(tokens) >= n else 0.0


def distinct_n(tokens: Sequence[Hashable], n: int) -> float:
    """Return distinct n-grams / all n-grams, [0, 1]; 0 if there is no n-gram. Falls with length: show both."""
    grams = ngrams(tokens, n)
    return len(set(grams)) / len(grams) if grams else 0.0


def looped_spans(tokens: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """Find maximal stretches that repeat a unit at once, as (start, end, period), by start.

    Tokens start..end - 1 say a unit of `period` tokens at least twice in a row; the last repeat may be cut short:
    "a b a b a" is one span of period 2. A stretch that a shorter period explains is not listed again.
    """
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(token, len(numbers)) for token in tokens], dtype=np.int64)
    spans: list[tuple[int, int, int]] = []
    for period in range(1, len(codes) // 2 + 1):
        is_same = np.concatenate([[False], codes[:-period] == codes[period:], [False]])
        for start, end in np.flatnonzero(np.diff(is_same)).reshape(-1, 2).tolist():
            is_known = any(known[0] <= start and end + period <= known[1] for known in spans)
            if end - start >= period and not is_known:
                spans.append((start, end + period, period))
    return sorted(spans)


def answer_positions(trace: Trace, step: int | None = None) -> np.ndarray:
    """Return the positions that a reader sees after pass `step` (by default the last), in order, int.

    They are filled, lie before the end of the answer, and hold text: masks, special tokens and what stands behind a
    stop are padding.
    """
    ids = trace.replay(step)
    step = trace.forward_evaluations - 1 if step is None else step
    end = int(trace.stops[step]) if 0 <= step < len(trace.stops) else trace.first_stop
    is_seen = [token != trace.mask_token_id and bool(trace.pieces.get(token)) for token in ids[:end].tolist()]
    return np.flatnonzero(is_seen)


def measure_trace(trace: Trace) -> Repetition:
    """Measure the finished answer, over its token ids."""
    return measure_repetition(trace.replay()[answer_positions(trace)].tolist())


def duplicate_commits(trace: Trace) -> pd.DataFrame:
    """Tabulate when and where adjacent duplicates of the finished answer were committed, one row per duplicate.

    The duplicate is there from the later of its two commits on; that commit is the one described, the right one if
    both fell in one pass. A token that was given counts as committed before the first pass.

    Columns: position, piece, step and twin_step (forward passes from 0, of this commit and the other), confidence,
    committed_in_step (commits of that pass in the answer), neighbours_in_step (how many of the two positions beside
    it were committed in the same pass).
    """
    final, seen, ids = trace.final_commits(), answer_positions(trace), trace.replay()
    steps = np.full(trace.gen_length + 2, -1)  # of positions -1 .. L; -1 where nothing stands
    steps[1:-1][final >= 0] = trace.step[final[final >= 0]]
    rows = []
    for left, right in pairwise(seen.tolist()):
        is_committed = max(final[left], final[right]) >= 0  # or both were given
        if ids[left] != ids[right] or not is_committed:
            continue
        position, twin = (right, left) if steps[right + 1] >= steps[left + 1] else (left, right)
        commit, step = final[position], steps[position + 1]
        together = int(((trace.step == step) & (trace.position >= 0)).sum())
        neighbours = int((steps[[position, position + 2]] == step).sum())
        piece, confidence = trace.piece(trace.token_id[commit]), float(trace.confidence[commit])
        rows.append((position, piece, step, steps[twin + 1], confidence, together, neighbours))
    columns = (
        "position",
        "piece",
        "step",
        "twin_step",
        "confidence",
        "committed_in_step",
        "neighbours_in_step",
    )
    return pd.DataFrame(rows, columns=columns)
