"""Only settings that go together are offered, and all of them are."""

import itertools

import pytest

from medv_lab.config import GenerationSettings, SettingsError
from medv_lab.explorer import choices
from medv_lab.strategies.base import Cache, Guard, Strategy


@pytest.mark.parametrize("length", choices.LENGTHS)
def test_exactly_the_valid_lengths_are_offered(length):
    blocks = choices.block_lengths(length)
    for block in range(1, length + 1):
        steps = choices.step_counts(length, block) if block in blocks else ()
        for wanted in {1, 2, 3, length // 2 or 1, length - 1 or 1, length, *steps[:3], *steps[-3:]}:
            is_offered = block in blocks and wanted in steps
            try:
                GenerationSettings(length, block, wanted)
            except SettingsError:
                assert not is_offered
            else:
                assert is_offered


@pytest.mark.parametrize("length", choices.LENGTHS)
@pytest.mark.parametrize(
    ("block", "steps", "before"), [(32, 64, 64), (1, 1, 8), (64, 256, 256), (96, 3, None)]
)
def test_settled_lengths_are_valid_and_near(length, block, steps, before):
    B, Z = choices.settle_lengths(length, block, steps, before)
    GenerationSettings(length, B, Z)
    assert length % block or block == B or block > length


def test_an_answer_that_grows_has_one_block_no_longer_than_its_most():
    assert choices.block_lengths(64, True) == (64,)
    assert choices.settle_lengths(64, 32, 16, is_growing=True) == (64, 16)
    assert choices.lengths(100)[-1] == 96
    assert choices.lengths(5) == (5,)
    assert choices.lengths() == choices.LENGTHS


def test_what_is_valid_stays_and_z_keeps_its_share():
    assert choices.settle_lengths(96, 32, 48) == (32, 48)
    assert choices.settle_lengths(128, 32, 48, 96) == (32, 64)
    assert choices.settle_lengths(48, 32, 48, 96) == (24, 24)


@pytest.mark.parametrize("name", Strategy.known)
def test_guards_and_caches_are_those_that_settings_take(name):
    strategy = Strategy.known[name]()
    lengths = {"block_length": 64, "gen_length": 64} if strategy.is_growing else {}
    for guard, cache, records in itertools.product(Guard.known, Cache.known, (False, True)):
        is_offered = guard in choices.guards(strategy) and cache in choices.caches(strategy, records)
        try:
            GenerationSettings(remasking=strategy, guard=guard, cache=cache, **lengths)
        except SettingsError:
            assert not is_offered
        else:
            assert is_offered or (records and cache != "none")


@pytest.mark.parametrize(
    ("text", "ids"), [("reference", "reference"), (" ", ()), ("1, 5,", (1, 5)), ("0", (0,))]
)
def test_suppressed_tokens_are_read(text, ids):
    assert choices.read_suppressed(text) == ids
    GenerationSettings(suppressed_tokens=ids)


@pytest.mark.parametrize("text", ["all", "1 5", "-1", "1.5", "²"])
def test_other_suppressed_tokens_are_refused(text):
    with pytest.raises(ValueError, match="give 'reference'"):
        choices.read_suppressed(text)


def test_stops_are_read():
    assert choices.read_stops(" <|eot_id|>, The end. ,, ") == ("<|eot_id|>", "The end.")
    assert choices.read_stops("") == ()
