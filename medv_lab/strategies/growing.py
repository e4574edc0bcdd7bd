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
    answer longer, both by the probability of an end token: its sum over the last `end_window` positions, divided by
    `end_window`, so that positions that are not there yet count as 0.

    - Before anything is filled, `growth` masks are appended until that share reaches `end_threshold`. They make more
      blocks of B positions.
    - While it is filled, the least confident masked position of the block that is below `unsure_threshold` becomes
      `growth` masks, as long as the share is below `expand_threshold`. At most one position per pass.

    A pass fills all positions of the block above `threshold`, at least one. Growth stops at `max_length`, where the
    last is cut to what fits, and once a stop is known. The official code differs in two ways. It looks at the length
    once more in a pass that fills nothing; here the first filling pass is the last look, which saves a pass and changes
    no token. And where an answer stops growing short of `max_length`, it puts a tail of end tokens behind it; here
    nothing is written that no pass predicted, and an answer ends where its own tokens say so.
    """

    name = "daedal"
    is_adaptive = True
    is_growing = True
    watches_all = True
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
        length, ends = seen.answer.shape[1], self._end_share(seen)
        growth = min(self.growth, self.max_length - length)
        if not seen.memory["is_filling"] and growth > 0 and ends < self.end_threshold:
            return Decision(np.zeros(0, np.int64), grow=((length, growth),), is_filling=False)
        seen.memory["is_filling"] = True
        is_sure = seen.confidence > self.threshold
        commit = best_per_row(seen.confidence, seen.rows, np.maximum(seen.num_transfer, is_sure.sum()))
        return Decision(commit, grow=self._insertion(seen, commit, ends))

    def _end_share(self, seen: Candidates) -> float:
        """Return the sum of the end probability over the window, 1 or 0 where a token stands, divided by its size."""
        probability = np.isin(seen.answer[0], seen.end_ids).astype(np.float64)
        is_answer = seen.watched.positions >= 0
        probability[seen.watched.positions[is_answer]] = seen.watched.end_probability[is_answer]
        return float(probability[-self.end_window :].sum() / self.end_window)

    def _insertion(self, seen: Candidates, commit: np.ndarray, ends: float) -> tuple[tuple[int, int], ...]:
        """Return where masks are put behind a position that stays masked, and how many: nowhere, or once."""
        # the position itself is one of them
        more = min(self.growth - 1, self.max_length - seen.answer.shape[1])
        stays = np.setdiff1d(np.arange(len(seen.positions)), commit)
        is_unsure = (seen.positions[stays] >= 0) & (seen.confidence[stays] < self.unsure_threshold)
        unsure = stays[is_unsure]
        if not len(unsure) or more < 1 or ends >= self.expand_threshold:
            return ()
        return ((int(seen.positions[unsure[seen.confidence[unsure].argmin()]]) + 1, more),)
