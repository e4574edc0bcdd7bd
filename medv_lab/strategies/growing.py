"""An answer that finds its own length: it starts short and grows where the model wants to say more.

L answer positions now, N candidates.
"""

from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import (
    Candidates,
    Committed,
    Decision,
    Guard,
    SettingsError,
    Strategy,
    best_per_row,
    parameter,
)


@dataclass(frozen=True)
class Daedal(Strategy):
    """Lengthens the answer by the probability that it ends, then fills it and puts masks in where it is unsure.

    Source: DAEDAL (arXiv 2508.00819), its initial length adjustment and its mask insertion. Two decisions make an
    answer longer, both by the mean probability of an end token over the last `end_window` positions:

    - before anything is filled, `growth` masks are appended until that mean reaches `end_threshold`;
    - while it is filled, the least confident masked position that is below `unsure_threshold` becomes `growth` masks,
      as long as the mean is below `expand_threshold`. At most one position per pass.

    A pass fills all positions above `threshold`, and at least the remaining masks divided by the remaining filling
    passes, so that the answer is full after Z filling passes. The length never exceeds `max_length`, and nothing grows
    once a stop is known or in the last pass.
    """

    name = "daedal"
    is_adaptive = True
    is_growing = True
    threshold: float = parameter(0.9, 0, 1)
    unsure_threshold: float = parameter(0.1, 0, 1)
    end_threshold: float = parameter(0.5, 0, 1)
    expand_threshold: float = parameter(0.9, 0, 1)
    end_window: int = parameter(32, 1, 2**31)
    growth: int = parameter(8, 2, 2**31)
    max_length: int = parameter(256, 1, 2**31)

    def longest(self, gen_length: int) -> int:
        """Return `max_length`.

        Raises:
            SettingsError: for an answer that starts longer.
        """
        if gen_length > self.max_length:
            raise SettingsError(
                f"gen_length is {gen_length} and max_length {self.max_length}, but {self.name!r} grows from gen_length "
                "to max_length; give a max_length as large or larger"
            )
        return self.max_length

    def new_memory(self) -> dict[str, bool]:
        """Return whether the run has begun to fill."""
        return {"is_filling": False}

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Append masks, or fill and perhaps insert some."""
        length = seen.answer.shape[1]
        ends = self._mean_end_probability(seen)
        fits = length + self.growth <= self.max_length
        if not seen.memory["is_filling"] and fits and ends < self.end_threshold:
            return Decision(np.zeros(0, np.int64), grow=((length, self.growth),), is_filling=False)
        seen.memory["is_filling"] = True
        is_sure = seen.confidence > self.threshold
        commit = best_per_row(seen.confidence, seen.rows, np.maximum(seen.num_transfer, is_sure.sum()))
        return Decision(commit, grow=self._insertion(seen, commit, ends))

    def _mean_end_probability(self, seen: Candidates) -> float:
        """Return the mean probability of an end token over the last positions; 1 or 0 where one is filled."""
        probability = np.isin(seen.answer[0], seen.end_ids).astype(np.float64)
        is_answer = seen.positions >= 0
        probability[seen.positions[is_answer]] = seen.end_probability[is_answer]
        return float(probability[-self.end_window :].mean())

    def _insertion(self, seen: Candidates, commit: np.ndarray, ends: float) -> tuple[tuple[int, int], ...]:
        """Return where masks are put behind a position that stays masked, and how many: nowhere, or once."""
        more = self.growth - 1  # the position itself is one of them
        stays = np.setdiff1d(np.arange(len(seen.positions)), commit)
        is_unsure = (seen.positions[stays] >= 0) & (seen.confidence[stays] < self.unsure_threshold)
        unsure = stays[is_unsure]
        fits = seen.answer.shape[1] + more <= self.max_length
        if not len(unsure) or not fits or ends >= self.expand_threshold:
            return ()
        return ((int(seen.positions[unsure[seen.confidence[unsure].argmin()]]) + 1, more),)
