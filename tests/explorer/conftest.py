"""A strategy of the user's own, known while a test runs."""

from dataclasses import dataclass

import pytest

from medv_lab.strategies.base import Candidates, Plan, Strategy, parameter


@pytest.fixture
def right_first():
    @dataclass(frozen=True)
    class RightFirst(Strategy):
        """Commits from the right, if the weight is positive."""

        name = "right_first"
        weight: float = parameter(1.0)
        label: str = "a text has no box and stays as it is"

        def plan(self, seen: Candidates) -> Plan:
            return Plan(self.weight * seen.positions, seen.num_transfer)

    yield RightFirst
    del Strategy.known["right_first"]
