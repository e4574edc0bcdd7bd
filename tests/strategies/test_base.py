"""Choices know their names and check their parameters; a class of a user's own is one like ours."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from medv_lab.config import (
    DualCache,
    EntropyBound,
    Factor,
    GenerationSettings,
    KlStability,
    NoCache,
    PositionDecay,
    RepetitionPenalty,
    SettingsError,
    Threshold,
    Wino,
)
from medv_lab.strategies.base import (
    Cache,
    Candidates,
    Decision,
    Guard,
    Plan,
    Strategy,
    best_per_row,
    parameter,
)
from tests.diffusion.toy import MASK, STOP, Toy, final, prompts, run, trace_of

LONG = GenerationSettings(gen_length=16, block_length=8, steps=16)


@pytest.fixture
def left_first():
    """A strategy as a user writes it; its name is forgotten afterwards."""

    @dataclass(frozen=True)
    class LeftFirst(Strategy):
        """Commits the leftmost positions of the block first, if they are not too unlikely."""

        name = "left_first"
        least: float = parameter(0.0, 0, 1)

        def plan(self, seen: Candidates) -> Plan:
            is_likely = seen.confidence >= self.least
            return Plan(rating=is_likely * 1000 - seen.positions, count=seen.num_transfer)

    yield LeftFirst
    del Strategy.known["left_first"]


def test_a_user_s_own_strategy_is_one_like_ours(left_first, tmp_path):
    settings = replace(LONG, remasking=left_first(), steps=8)
    assert replace(LONG, remasking="left_first", steps=8) == settings
    assert GenerationSettings.from_dict(settings.to_dict()) == settings
    assert settings.to_dict()["remasking"] == {"name": "left_first", "least": 0.0}
    ids, mask = prompts()
    together = run(Toy(), ids, mask, settings, stops=[[STOP]], suppressed=(MASK,))
    first = together[0]
    assert [first.positions[first.rows == row].tolist() for row in range(len(ids))] == [[0, 1]] * len(ids)
    for row in range(len(ids)):  # in a batch as alone, and replayed
        own = ids[row : row + 1, mask[row].bool()]
        alone = run(Toy(), own, None, settings, stops=[[STOP]], suppressed=(MASK,))
        assert final(together[-1], row) == final(alone[-1])
        assert trace_of(alone, 0, settings).replay().tolist() == alone[-1].canvas[0].tolist()


def test_it_goes_with_every_guard_and_cache_that_fits(left_first):
    for guard in Guard.known:
        for cache in Cache.known:
            assert replace(LONG, remasking=left_first(0.5), guard=guard, cache=cache).remasking.least == 0.5
    with pytest.raises(SettingsError, match="least is 2; give a number, from 0 to 1"):
        left_first(2)


def test_a_class_that_is_defined_again_replaces_itself_but_no_other(left_first):
    with pytest.raises(SettingsError, match="the remasking 'threshold' is there already"):

        class Other(Strategy):
            """Takes a name that is taken."""

            name = "threshold"

    assert Strategy.known["threshold"] is Threshold


def test_names_objects_and_mappings_say_the_same():
    for value in ("threshold", Threshold(), {"name": "threshold"}, {"name": "threshold", "threshold": 0.9}):
        assert Strategy.make(value) == Threshold(0.9)
    assert (str(Threshold()), str(Threshold(0.7))) == ("threshold", "threshold (threshold 0.7)")
    assert NoCache().to_dict() == "none"
    assert DualCache(8).to_dict() == {"name": "dual", "refresh": 8}
    assert Guard.make("penalty") == RepetitionPenalty(0.5)


@pytest.mark.parametrize("kind", [Strategy, Guard, Cache])
def test_every_choice_survives_json_with_defaults_that_could_be_set(kind):
    for name, one in kind.known.items():
        assert kind.make(name) == one() == kind.make(one().to_dict())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("treshold", "did you mean threshold"),
        (Threshold, r"a class was given where its object is wanted, Threshold\(...\)"),
        (
            {"name": "threshold", "limit": 1},
            "'limit' is no parameter of the remasking 'threshold'; it has threshold",
        ),
        ({"threshold": 0.9}, "allowed are low_confidence, random"),
        (DualCache(), "allowed are low_confidence, random"),
        (None, "or an object of a Strategy class"),
    ],
    ids=str,
)
def test_what_is_no_choice_says_what_is_allowed(value, says):
    with pytest.raises(SettingsError, match=says):
        Strategy.make(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", True, None])
def test_parameters_are_checked(value):
    with pytest.raises(SettingsError, match="verify_threshold is .* give a number, from 0 to 1"):
        Wino(verify_threshold=value)


@pytest.mark.parametrize("kind", [Threshold, KlStability])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_thresholds_are_probabilities(kind, value):
    with pytest.raises(SettingsError, match="threshold is .* give a number, from 0 to 1"):
        kind(value)


def test_defaults_stay_as_they_were_published():
    made = [PositionDecay(0.25), Threshold(0.9), Factor(1.0), EntropyBound(0.1), KlStability(0.9, 0.01, 2)]
    assert [type(one)() for one in made] == made


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_the_best_rated_of_each_row_are_chosen(count):
    random = np.random.default_rng(0)
    rows = np.sort(random.integers(0, 6, 30))
    confidence = random.random(30)
    chosen = best_per_row(confidence, rows, np.full(6, count))
    for row in range(6):
        mine = np.flatnonzero(rows == row)
        expected = sorted(mine, key=lambda index: -confidence[index])[:count]
        assert chosen[rows[chosen] == row].tolist() == sorted(expected)


def test_equally_rated_candidates_are_taken_in_order():
    assert best_per_row(np.array([0.5, 1.0, 1.0, 1.0]), np.zeros(4, int), np.array([2])).tolist() == [1, 2]


def test_a_class_without_a_name_of_its_own_is_refused():
    class Nameless(Threshold):
        """Would be kept and found as its parent."""

    with pytest.raises(SettingsError, match="Nameless has no name of its own; give the class one"):
        Nameless()


def test_an_adaptive_strategy_that_wants_nothing_still_fills_the_answer():
    @dataclass(frozen=True)
    class Timid(Strategy):
        """Trusts nothing."""

        name = "timid"
        is_adaptive = True

        def plan(self, seen: Candidates) -> Plan:
            return Plan(seen.confidence, np.zeros(len(seen.num_transfer), int))

    try:
        records = run(Toy(), *prompts(2), replace(LONG, remasking=Timid()), suppressed=(MASK,))
    finally:
        del Strategy.known["timid"]
    assert not (records[-1].canvas == MASK).any()
    assert len(records) == LONG.steps


@pytest.mark.parametrize(
    ("decide", "says"),
    [
        (lambda n: Decision(np.array([0, 0])), "give ascending indices below"),
        (lambda n: Decision(np.array([-1])), "give ascending indices below"),
        (lambda n: Decision(np.array([n])), "give ascending indices below"),
        (lambda n: Decision(np.array([0]), grow=((3, 2),)), "set is_growing = True"),
        (lambda n: Decision(np.array([], int), is_filling=False), "it would not end"),
        (lambda n: Plan(np.ones(n + 1), np.ones(1, int)), "has a rating of the shape"),
        (lambda n: Plan(np.full(n, np.nan), np.ones(1, int)), "has a rating of the shape"),
        (lambda n: Plan(np.ones(n), np.ones(1)), "a whole number for each of 1 rows"),
        (lambda n: Plan(np.ones(n), 1), "a whole number for each of 1 rows"),
    ],
)
def test_what_a_strategy_decides_is_checked(decide, says):
    @dataclass(frozen=True)
    class Odd(Strategy):
        """Decides what cannot be done."""

        name = "odd"

        def plan(self, seen: Candidates) -> Plan:
            return decide(len(seen.rows))

        def decide(self, seen, committed, guard):
            made = decide(len(seen.rows))
            return made if isinstance(made, Decision) else super().decide(seen, committed, guard)

    try:
        with pytest.raises(ValueError, match=says):
            run(Toy(), prompts(1)[0], settings=replace(LONG, remasking=Odd()))
    finally:
        del Strategy.known["odd"]


def test_a_class_that_is_no_choice_yet_says_what_is_missing():
    with pytest.raises(SettingsError, match="the name of Numbered is 5; give a text"):

        class Numbered(Strategy):
            """Has a number for a name."""

            name = 5

    class Undecorated(Strategy):
        """Has a parameter that no dataclass knows."""

        name = "undecorated"
        share: float = parameter(0.5)

    @dataclass(frozen=True)
    class Needy(Strategy):
        """Has a parameter without a default, and another strategy in it."""

        name = "needy"
        share: float = parameter()
        inner: Strategy = Threshold(0.7)

    try:
        with pytest.raises(SettingsError, match="share of Undecorated is no parameter yet"):
            Undecorated()
        with pytest.raises(SettingsError, match="the remasking 'needy' needs share"):
            Strategy.make("needy")
        assert Needy(1.0).to_dict()["inner"] == {"name": "threshold", "threshold": 0.7}
    finally:
        del Strategy.known["undecorated"], Strategy.known["needy"]
