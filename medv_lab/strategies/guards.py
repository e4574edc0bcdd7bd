"""Guards: what a pass commits of the candidates that a strategy has rated.

One commits the end as soon as it is sure. The others keep one pass from writing the same token side by side, a plain
failure of few steps: positions that are filled in the same pass do not see each other, so two neighbours often become
the same word. Such a guard looks at the candidates of a row from the best rated to the worst and may hold some back for
a later pass, as far as the number of tokens to transfer allows: what is missing is filled up with the best of those
held back. These are ideas of this kit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import Candidates, Guard, Plan, best_per_row, parameter


@dataclass(frozen=True)
class NoGuard(Guard):
    """Lets all pass."""

    name = "none"

    def choose(self, plan: Plan, seen: Candidates) -> np.ndarray:
        """Choose the best rated, whatever they are."""
        return best_per_row(plan.rating, seen.rows, plan.count)


@dataclass(frozen=True)
class RepetitionPenalty(Guard):
    """Takes `penalty` off the rating for each neighbour that has the same token already, or gets it now.

    Nothing is held back: it is the order that changes.
    """

    name = "penalty"
    penalty: float = parameter(0.5)

    def choose(self, plan: Plan, seen: Candidates) -> np.ndarray:
        """Choose one after the other, rating anew each time."""
        chosen = []
        for row in np.unique(seen.rows):
            waiting = np.flatnonzero(seen.rows == row).tolist()
            written = dict(enumerate(seen.answer[row].tolist()))

            def rate(index: int, written: dict[int, int] = written) -> float:
                position = int(seen.positions[index])
                same = sum(written.get(near) == seen.tokens[index] for near in (position - 1, position + 1))
                return plan.rating[index] - self.penalty * same

            for _ in range(min(int(plan.count[row]), len(waiting))):
                favourite = max(waiting, key=rate)  # the first of equals
                waiting.remove(favourite)
                chosen.append(favourite)
                written[int(seen.positions[favourite])] = int(seen.tokens[favourite])
        return np.sort(np.array(chosen, np.int64))


@dataclass(frozen=True)
class Spread(Guard):
    """Commits positions that lie at least `spacing` apart."""

    name = "spread"
    spacing: int = parameter(4, 1, 2**31)

    def choose(self, plan: Plan, seen: Candidates) -> np.ndarray:
        """Choose the best rated that are near no better one."""
        return _choose_apart(
            plan, seen, lambda one, other: abs(seen.positions[one] - seen.positions[other]) < self.spacing
        )


@dataclass(frozen=True)
class SureEnd(Guard):
    """Commits, beside the best rated, the first end token of a row that is confident enough.

    What lies behind the end of an answer need not be filled, so that a row is done as soon as all before it is. Source:
    the early termination of dInfer (arXiv 2510.08666), which stops where an end token was committed, as all our runs
    do; here the end is committed as soon as it is sure, whatever is rated above it.
    """

    name = "sure_end"
    end_threshold: float = parameter(0.9, 0, 1)

    def choose(self, plan: Plan, seen: Candidates) -> np.ndarray:
        """Choose the best rated, and the first sure end of each row."""
        best = best_per_row(plan.rating, seen.rows, plan.count)
        is_end = np.isin(seen.tokens, seen.end_ids) & (seen.confidence >= self.end_threshold)
        ends = np.flatnonzero(is_end & (seen.positions >= 0))
        _, firsts = np.unique(seen.rows[ends], return_index=True)
        return np.union1d(best, ends[firsts])


def _choose_apart(plan: Plan, seen: Candidates, is_near: Callable[[int, int], bool]) -> np.ndarray:
    """Choose the best rated of each row that are near no better one, then the best of the others if more must go."""
    chosen: list[int] = []
    order = np.lexsort((-plan.rating, seen.rows))
    for row in np.unique(seen.rows):
        taken: list[int] = []
        held_back: list[int] = []
        for index in order[seen.rows == row].tolist():
            if len(taken) == plan.count[row]:
                break
            (held_back if any(is_near(index, other) for other in taken) else taken).append(index)
        missing = max(0, int(seen.num_transfer[row]) - len(taken))
        chosen += taken + held_back[:missing]
    return np.sort(np.array(chosen, np.int64))
