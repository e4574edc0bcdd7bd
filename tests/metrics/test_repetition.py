"""Repetition equals hand-computed values and is found where a trace committed it."""

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.metrics.repetition import (
    answer_positions,
    distinct_n,
    duplicate_commits,
    looped_spans,
    measure_repetition,
    measure_trace,
    rep_n,
)

MASK, END = 9, 8

# Computed by hand: tokens, adjacent duplicates, rep-4, distinct-1, looped share, looped spans (start, end, period).
CASES = [
    ("", 0, 0, 0, 0, []),
    ("a", 0, 0, 1, 0, []),
    ("aa", 1, 0, 1 / 2, 1, [(0, 2, 1)]),
    ("aaaaa", 1, 1 / 2, 1 / 5, 1, [(0, 5, 1)]),
    ("aba", 0, 0, 2 / 3, 0, []),
    ("ababa", 0, 0, 2 / 5, 1, [(0, 5, 2)]),
    ("aabb", 2 / 3, 0, 1 / 2, 1, [(0, 2, 1), (2, 4, 1)]),
    ("abbba", 2 / 4, 0, 2 / 5, 3 / 5, [(1, 4, 1)]),
    ("abcabcab", 0, 2 / 5, 3 / 8, 1, [(0, 8, 3)]),
    ("xabab", 0, 0, 3 / 5, 4 / 5, [(1, 5, 2)]),
    ("ababx", 0, 0, 3 / 5, 4 / 5, [(0, 4, 2)]),
    ("aabaab", 2 / 5, 0, 2 / 6, 1, [(0, 2, 1), (0, 6, 3), (3, 5, 1)]),
    ("abcdxabcd", 0, 1 / 6, 5 / 9, 0, []),
    ("abccba", 1 / 5, 0, 1 / 2, 1 / 3, [(2, 4, 1)]),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] or "empty" for case in CASES])
def test_every_number_equals_the_one_computed_by_hand(case):
    text, *numbers, spans = case
    measured = measure_repetition(text)
    assert astuple(measured) == pytest.approx((len(text), *numbers))
    assert looped_spans(text) == spans
    assert measure_repetition([ord(token) for token in text]) == measured  # any tokens will do


def test_ngrams_of_other_lengths_are_defined():
    assert rep_n(["a", "a"], 4) == distinct_n(["a", "a"], 4) == 0
    assert rep_n(list("abcabc"), 3) == pytest.approx(1 / 4)


def test_looped_spans_are_loops_and_as_long_as_they_can_be():
    random = np.random.default_rng(0)
    for _ in range(100):
        tokens = random.integers(0, 2, random.integers(0, 14)).tolist()
        spans = looped_spans(tokens)
        for start, end, period in spans:
            assert end - start >= 2 * period
            assert tokens[start : end - period] == tokens[start + period : end]
            assert start == 0 or tokens[start - 1] != tokens[start - 1 + period]
            assert end == len(tokens) or tokens[end] != tokens[end - period]
        squares = [
            (start, start + 2 * period)
            for period in range(1, len(tokens) // 2 + 1)
            for start in range(len(tokens) - 2 * period + 1)
            if tokens[start : start + period] == tokens[start + period : start + 2 * period]
        ]
        assert all(any(s[0] <= start and end <= s[1] for s in spans) for start, end in squares)


def make_trace(canvas: list[int], order: list[int], steps: list[int], **changes) -> SampleTrace:
    """The canvas, filled in an order; alternatives are the token itself and END."""
    tokens = np.array([canvas[position] for position in order], int)
    fields = {
        "step": np.array(steps, int),
        "block": np.array(order, int) // 4,
        "position": np.array(order, int),
        "token_id": tokens,
        "confidence": 1 / (2 + np.arange(len(order))),
        "entropy": np.arange(len(order)) / 8,
        "alternative_ids": np.stack([tokens, np.full_like(tokens, END)], 1),
        "alternative_probs": np.tile([0.5, 0.25], (len(order), 1)),
        "stops": np.full(max(steps, default=-1) + 1, len(canvas)),
        "gen_length": len(canvas),
        "block_length": 4,
        "mask_token_id": MASK,
        "pieces": {0: b" a", 1: b" b", 2: b" c", END: b""},
    }
    return SampleTrace(**fields | changes)


def test_the_answer_of_a_trace_is_measured_without_its_padding():
    canvas = [0, 0, 1, 2, 0, 1, 0, 1]
    trace = make_trace(canvas, [1, 0, 2, 3, 4, 5, 6, 7], [0, 0, 1, 1, 2, 2, 3, 3])
    assert measure_trace(trace) == measure_repetition(canvas)
    ended = make_trace([*canvas, END, END, END, END], list(range(12)), [0] * 12)
    assert measure_trace(ended) == measure_repetition(canvas)
    stopped = make_trace([*canvas, 2, 2, 2, 2], list(range(12)), [0] * 12, stops=np.array([8]))
    assert measure_trace(stopped) == measure_repetition(canvas)
    half = make_trace(canvas, [0, 1, 2], [0, 0, 1])
    assert measure_trace(half) == measure_repetition(canvas[:3])
    assert answer_positions(half, 0).tolist() == [0, 1]
    assert answer_positions(half, -1).tolist() == []


@pytest.mark.parametrize("filled", [0, 1])
def test_empty_and_one_token_traces_are_defined(filled):
    trace = make_trace([0, 0, 0, 0], list(range(filled)), list(range(filled)))
    assert astuple(measure_trace(trace)) == (filled, 0, 0, filled, 0)
    assert len(duplicate_commits(trace)) == 0


def test_duplicates_are_found_where_and_when_they_were_committed():
    # "a a b c c b b a": (0, 1) in passes 0 and 2, (3, 4) both in pass 1, (5, 6) in passes 3 and 2.
    trace = make_trace([0, 0, 1, 2, 2, 1, 1, 0], [0, 3, 4, 1, 6, 5, 2, 7], [0, 1, 1, 2, 2, 3, 3, 3])
    expected = {
        "position": [1, 4, 5],
        "piece": [" a", " c", " b"],
        "step": [2, 1, 3],
        "twin_step": [0, 1, 2],
        "confidence": [1 / 5, 1 / 4, 1 / 7],
        "committed_in_step": [2, 2, 3],
        "neighbours_in_step": [0, 1, 0],
    }
    pd.testing.assert_frame_equal(duplicate_commits(trace), pd.DataFrame(expected))


def test_the_last_commit_of_a_position_makes_the_duplicate():
    trace = make_trace([0, 0, 1, 2], [0, 1, 1], [0, 1, 2], token_id=np.array([0, 1, 0]))
    assert duplicate_commits(trace)[["position", "step"]].to_numpy().tolist() == [[1, 2]]
    undone = make_trace([0, 0, 1, 2], [0, 1, 1], [0, 1, 2], token_id=np.array([0, 0, MASK]))
    assert duplicate_commits(undone).empty


def test_commits_in_the_prompt_are_not_counted_with_those_of_the_answer():
    trace = make_trace([0, 0, 1, 2], [0, 1, -1, 2, 3], [0, 0, 0, 1, 1])
    assert duplicate_commits(trace).committed_in_step.tolist() == [2]


def test_a_duplicate_over_a_special_token_is_one_since_the_text_shows_it():
    found = duplicate_commits(make_trace([0, END, 0, 1], [0, 1, 2, 3], [0, 0, 0, 0]))
    assert found.position.tolist() == [2]


def test_there_are_as_many_duplicates_as_the_rate_says():
    random = np.random.default_rng(1)
    for _ in range(30):
        canvas, order = random.integers(0, 3, 12).tolist(), random.permutation(12).tolist()
        trace = make_trace(canvas, order, np.sort(random.integers(0, 5, 12)).tolist())
        assert len(duplicate_commits(trace)) / 11 == pytest.approx(measure_trace(trace).adjacent_duplicates)


def test_a_given_token_was_there_before_the_first_pass():
    given = np.array([MASK, 1, 1, MASK])
    trace = make_trace([1, 1, 1, 1], [3, 0], [0, 1], given=given)
    found = duplicate_commits(trace)
    assert found.position.tolist() == [0, 3]  # 1 and 2 were both given
    assert found.step.tolist() == [1, 0]
    assert found.twin_step.tolist() == [-1, -1]
    assert answer_positions(trace, -1).tolist() == [1, 2]
