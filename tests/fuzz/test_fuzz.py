"""Damaged inputs, thousands of them, each read or refused by name; the default run has the first of `make fuzz`."""

import os
import resource
import time

import pytest

from tests.fuzz.targets import TARGETS, read_damaged

SHORT = 12  # inputs of each kind in the default run
LONG = int(os.environ.get("MEDV_FUZZ_INPUTS", "600"))
MOST_SECONDS, MOST_KILOBYTES = 10, 1_000_000


def fuzz(kind: str, seeds: range, folder, record) -> None:
    counts = {"tried": 0, "accepted": 0, "refused by name": 0, "failed": 0}
    faults = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        counts["tried"] += 1
        began = time.process_time()
        try:
            refused = read_damaged(kind, seed, folder)
        except Exception as error:
            faults.append(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
            continue
        if time.process_time() - began > MOST_SECONDS:
            faults.append(f"seed {seed}: took {time.process_time() - began:.0f} s")
            continue
        if refused is not None and not str(refused).strip():
            faults.append(f"seed {seed}: {type(refused).__name__} without a word")
            continue
        counts["accepted" if refused is None else "refused by name"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > MOST_KILOBYTES:
        faults.append(f"memory grew by {grown} kB")
    record("fuzz", {"kind": kind, **counts, "failed": len(faults)})
    assert not faults, "\n".join(faults[:10])


@pytest.mark.parametrize("kind", TARGETS)
def test_the_first_damaged_inputs_are_read_or_refused_by_name(kind, tmp_path, record_property):
    fuzz(kind, range(SHORT), tmp_path, record_property)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_inputs_are_read_or_refused_by_name(kind, tmp_path, record_property):
    fuzz(kind, range(LONG), tmp_path, record_property)
