"""Repetition equals hand-computed values, ignores padding, and is found where a trace committed it."""

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.metrics.repetition import (
    adjacent_duplicates,
    answer_positions,
    distinct_n,
    duplicate_commits,
    longest_run,
    looped_spans,
    measure_repetition,
    measure_trace,
    rep_n,
)

MASK, END = 9, 8

# Computed by hand: tokens, adjacent duplicates, rep-1, rep-2, rep-4, distinct-1, distinct-2, longest run, looped share,
# looped spans (start, end, period).
CASES = [
    ("", 0, 0, 0, 0, 0, 0, 0, 0, []),
    ("a", 0, 0, 0, 0, 1, 0, 1, 0, []),
    ("ab", 0, 0, 0, 0, 1, 1, 1, 0, []),
    ("aa", 1, 1 / 2, 0, 0, 1 / 2, 1, 2, 1, [(0, 2, 1)]),
    ("aaa", 1, 2 / 3, 1 / 2, 0, 1 / 3, 1 / 2, 3, 1, [(0, 3, 1)]),
    ("aaaaa", 1, 4 / 5, 3 / 4, 1 / 2, 1 / 5, 1 / 4, 5, 1, [(0, 5, 1)]),
    ("aba", 0, 1 / 3, 0, 0, 2 / 3, 1, 1, 0, []),
    ("abab", 0, 1 / 2, 1 / 3, 0, 1 / 2, 2 / 3, 1, 1, [(0, 4, 2)]),
    ("ababa", 0, 3 / 5, 1 / 2, 0, 2 / 5, 1 / 2, 1, 1, [(0, 5, 2)]),
    ("aabb", 2 / 3, 1 / 2, 0, 0, 1 / 2, 1, 2, 1, [(0, 2, 1), (2, 4, 1)]),
    ("abba", 1 / 3, 1 / 2, 0, 0, 1 / 2, 1, 2, 1 / 2, [(1, 3, 1)]),
    ("abbba", 2 / 4, 3 / 5, 1 / 4, 0, 2 / 5, 3 / 4, 3, 3 / 5, [(1, 4, 1)]),
    ("abcabc", 0, 1 / 2, 2 / 5, 0, 1 / 2, 3 / 5, 1, 1, [(0, 6, 3)]),
    ("abcabcab", 0, 5 / 8, 4 / 7, 2 / 5, 3 / 8, 3 / 7, 1, 1, [(0, 8, 3)]),
    ("abcdabcd", 0, 1 / 2, 3 / 7, 1 / 5, 1 / 2, 4 / 7, 1, 1, [(0, 8, 4)]),
    ("xabab", 0, 2 / 5, 1 / 4, 0, 3 / 5, 3 / 4, 1, 4 / 5, [(1, 5, 2)]),
    ("ababx", 0, 2 / 5, 1 / 4, 0, 3 / 5, 3 / 4, 1, 4 / 5, [(0, 4, 2)]),
    ("aabaab", 2 / 5, 4 / 6, 2 / 5, 0, 2 / 6, 3 / 5, 2, 1, [(0, 2, 1), (0, 6, 3), (3, 5, 1)]),
    ("abcdefg", 0, 0, 0, 0, 1, 1, 1, 0, []),
    ("abcxabc", 0, 3 / 7, 2 / 6, 0, 4 / 7, 4 / 6, 1, 0, []),
    ("abcdxabcd", 0, 4 / 9, 3 / 8, 1 / 6, 5 / 9, 5 / 8, 1, 0, []),
    ("aaab", 2 / 3, 1 / 2, 1 / 3, 0, 1 / 2, 2 / 3, 3, 3 / 4, [(0, 3, 1)]),
    ("abccba", 1 / 5, 1 / 2, 0, 0, 1 / 2, 1, 2, 1 / 3, [(2, 4, 1)]),
    ("aabbaa", 3 / 5, 4 / 6, 1 / 5, 0, 2 / 6, 4 / 5, 2, 1, [(0, 2, 1), (2, 4, 1), (4, 6, 1)]),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] or "empty" for case in CASES])
def test_every_number_equals_the_one_computed_by_hand(case):
    text, duplicates, rep_1, rep_2, rep_4, distinct_1, distinct_2, run, looped, spans = case
    assert asdict(measure_repetition(text)) == pytest.approx(
        {
            "length": len(text),
            "adjacent_duplicates": duplicates,
            "rep_1": rep_1,
            "rep_2": rep_2,
            "rep_4": rep_4,
            "distinct_1": distinct_1,
            "distinct_2": distinct_2,
            "longest_run": run,
            "looped": looped,
        }
    )
    assert looped_spans(text) == spans


@pytest.mark.parametrize("case", CASES, ids=[case[0] or "empty" for case in CASES])
def test_padding_and_the_names_of_tokens_change_nothing(case):
    bare = measure_repetition(case[0])
    assert measure_repetition(["<pad>", *case[0], *["<end>"] * 7], padding={"<pad>", "<end>"}) == bare
    assert measure_repetition([ord(token) for token in case[0]] + [0, 0], padding=[0]) == bare
    assert not any(math.isnan(value) for value in asdict(bare).values())


def test_padding_within_an_answer_still_counts():
    assert measure_repetition("a__a_", padding="_").adjacent_duplicates == pytest.approx(1 / 3)
    assert measure_repetition("___", padding="_") == measure_repetition("")


def test_ngrams_longer_than_the_answer_are_defined():
    assert rep_n(["a", "a"], 4) == distinct_n(["a", "a"], 4) == 0
    assert rep_n(list("abcabc"), 3) == pytest.approx(1 / 4)
    assert adjacent_duplicates([7]) == longest_run([]) == 0


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
        assert all(any(s.start <= start and end <= s.end for s in spans) for start, end in squares)


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
    measured = measure_trace(trace)
    assert not any(math.isnan(value) for value in asdict(measured).values())
    assert measured.length == filled
    assert len(duplicate_commits(trace)) == 0


def test_duplicates_are_found_where_and_when_they_were_committed():
    # "a a b c c b b a": (0, 1) in passes 0 and 2, (3, 4) both in pass 1, (5, 6) in passes 3 and 2.
    trace = make_trace([0, 0, 1, 2, 2, 1, 1, 0], [0, 3, 4, 1, 6, 5, 2, 7], [0, 1, 1, 2, 2, 3, 3, 3])
    found = duplicate_commits(trace)
    expected = {
        "position": [1, 4, 5],
        "twin_position": [0, 3, 6],
        "token_id": [0, 2, 1],
        "piece": [" a", " c", " b"],
        "block": [0, 1, 1],
        "step": [2, 1, 3],
        "twin_step": [0, 1, 2],
        "confidence": [1 / 5, 1 / 4, 1 / 7],
        "twin_confidence": [1 / 2, 1 / 3, 1 / 6],
        "entropy": [3 / 8, 2 / 8, 5 / 8],
        "committed_in_step": [2, 2, 3],
        "neighbours_in_step": [0, 1, 0],
    }
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected))


def test_the_last_commit_of_a_position_makes_the_duplicate():
    trace = make_trace([0, 0, 1, 2], [0, 1, 1], [0, 1, 2], token_id=np.array([0, 1, 0]))
    assert duplicate_commits(trace)[["position", "step"]].to_numpy().tolist() == [[1, 2]]
    undone = make_trace([0, 0, 1, 2], [0, 1, 1], [0, 1, 2], token_id=np.array([0, 0, MASK]))
    assert duplicate_commits(undone).empty


def test_a_duplicate_over_a_special_token_is_one_since_the_text_shows_it():
    found = duplicate_commits(make_trace([0, END, 0, 1], [0, 1, 2, 3], [0, 0, 0, 0]))
    assert found[["position", "twin_position"]].to_numpy().tolist() == [[2, 0]]


def test_there_are_as_many_duplicates_as_the_rate_says():
    random = np.random.default_rng(1)
    for _ in range(30):
        canvas, order = random.integers(0, 3, 12).tolist(), random.permutation(12).tolist()
        trace = make_trace(canvas, order, np.sort(random.integers(0, 5, 12)).tolist())
        assert len(duplicate_commits(trace)) / 11 == pytest.approx(measure_trace(trace).adjacent_duplicates)
