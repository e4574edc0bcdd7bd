"""Guards that keep one pass from writing the same token side by side, a plain failure of few steps.

Positions that are filled in the same pass do not see each other, so two neighbours often become the same word. A
guard looks at the candidates of a row from the best rated to the worst and may hold some back for a later pass, as far
as the quota allows: what is missing is filled up with the best of those held back. All are ideas of this kit.
"""

from collections.abc import Callable

import numpy as np

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.remasking import choose
from medv_lab.diffusion.strategies import Candidates, Plan


def choose_all(plan: Plan, seen: Candidates, settings: GenerationSettings) -> np.ndarray:
    """none: the best rated, whatever they are."""
    return choose(plan.rating, seen.rows, plan.count)


def choose_one_of_run(plan: Plan, seen: Candidates, settings: GenerationSettings) -> np.ndarray:
    """one_of_run: of neighbouring candidates that would all become the same token, only the best rated."""
    goes_on = (
        (np.diff(seen.rows) == 0) & (np.diff(seen.positions) == 1) & (np.diff(seen.tokens) == 0)
    )  # each with the one before it
    run = np.concatenate([[0], np.cumsum(~goes_on)])[: len(seen.rows)]
    return _choose_apart(plan, seen, lambda one, other: run[one] == run[other])


def choose_spread(plan: Plan, seen: Candidates, settings: GenerationSettings) -> np.ndarray:
    """spread: those committed in one pass lie at least `spacing` positions apart."""
    spacing = settings.parameter("spacing")
    return _choose_apart(
        plan, seen, lambda one, other: abs(seen.positions[one] - seen.positions[other]) < spacing
    )


def choose_penalised(plan: Plan, seen: Candidates, settings: GenerationSettings) -> np.ndarray:
    """penalty: each neighbour that has the same token already, or gets it now, takes the penalty off the rating.

    Nothing is held back: it is the order that changes.
    """
    penalty = settings.parameter("repetition_penalty")
    chosen = []
    for row in np.unique(seen.rows):
        waiting = np.flatnonzero(seen.rows == row).tolist()
        written = dict(enumerate(seen.answer[row].tolist()))

        def rate(index: int, written: dict[int, int] = written) -> float:
            place = int(seen.positions[index])
            same = sum(written.get(near) == seen.tokens[index] for near in (place - 1, place + 1))
            return plan.rating[index] - penalty * same

        for _ in range(min(int(plan.count[row]), len(waiting))):
            best = max(waiting, key=rate)  # the first of equals
            waiting.remove(best)
            chosen.append(best)
            written[int(seen.positions[best])] = int(seen.tokens[best])
    return np.sort(np.array(chosen, np.int64))


Guard = Callable[[Plan, Candidates, GenerationSettings], np.ndarray]
GUARDS: dict[str, Guard] = {
    "none": choose_all,
    "penalty": choose_penalised,
    "one_of_run": choose_one_of_run,
    "spread": choose_spread,
}


def _choose_apart(plan: Plan, seen: Candidates, is_near: Callable[[int, int], bool]) -> np.ndarray:
    """The best rated of each row that are near no better one; the quota is filled up with the best of the others."""
    chosen: list[int] = []
    order = np.lexsort((-plan.rating, seen.rows))
    for row in np.unique(seen.rows):
        taken: list[int] = []
        held_back: list[int] = []
        for index in order[seen.rows == row].tolist():
            if len(taken) == plan.count[row]:
                break
            (held_back if any(is_near(index, other) for other in taken) else taken).append(index)
        missing = max(0, int(seen.quota[row]) - len(taken))
        chosen += taken + held_back[:missing]
    return np.sort(np.array(chosen, np.int64))
