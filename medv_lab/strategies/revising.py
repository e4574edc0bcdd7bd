"""Strategies that also remask: a committed token may become a mask again.

Only positions of the active block, and none behind the row's stop, are remasked. A position is never remasked and
filled in one pass. All but wino are paced: a pass commits at least the remaining masks divided by the remaining passes,
rounded up (in the loop of remdm_loop, as many as are remasked), and nothing is remasked in the last pass of a block.
ReMDM stands here with all schedules of its paper. wino is adaptive.

R rows, N candidates, M committed positions that may be remasked.
"""

from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import Candidates, Committed, Decision, Guard, Strategy, best_per_row, parameter


@dataclass(frozen=True)
class RemaskingStrategy(Strategy):
    """A strategy that remasks; it chooses without a guard."""

    is_revising = True


@dataclass(frozen=True)
class ReMDM(RemaskingStrategy):
    """Remasks each committed token with chance sigma, and commits as many more as the schedule then lacks.

    sigma = min(cap, (1 - a_s) / a_t), a_t and a_s being the shares filled before and after the pass. Source:
    ReMDM (arXiv 2503.00307), section 4.1, the capped schedule. There each masked position is filled by chance; here,
    as the exact sampler does, the most confident are, in the expected number.
    """

    name = "remdm"
    remask_cap: float = parameter(0.04, 0, 1)

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Draw what is remasked, then commit the most confident."""
        before, after = self.filled(committed.filled_before), self.filled(committed.filled_after)
        remask = committed.draw() < self.sigma(committed, before, after)
        masked = seen.count(seen.rows) + seen.count(committed.rows[remask])
        left_open = round((1 - after) * seen.block_length)
        count = np.maximum(masked - left_open, self.least(seen, committed))
        return Decision(best_per_row(seen.confidence, seen.rows, count), np.flatnonzero(remask))

    def least(self, seen: Candidates, committed: Committed) -> np.ndarray:
        """Return how many a pass commits at the least, int (R,): the remaining masks by the remaining passes."""
        return seen.num_transfer

    def filled(self, share: float) -> float:
        """Return the share of the block that is to be filled when a share of its passes is over: the same."""
        return share

    def sigma(self, committed: Committed, before: float, after: float) -> np.ndarray | float:
        """Return the chance that each committed token is remasked, (M,) or one for all."""
        return min(self.remask_cap, _largest_sigma(before, after))


@dataclass(frozen=True)
class ReMDMRescale(ReMDM):
    """Remasks as `ReMDM`, with sigma = `scale` (1 - a_s) / a_t: the rescaled schedule of the same source."""

    name = "remdm_rescale"
    remask_cap: float = parameter(1.0, 0, 1)
    scale: float = parameter(0.05, 0, 1)

    def sigma(self, committed: Committed, before: float, after: float) -> np.ndarray | float:
        """Return a part of the largest chance with which the schedule can still be met."""
        return self.scale * super().sigma(committed, before, after)


@dataclass(frozen=True)
class ReMDMConfidence(ReMDM):
    """Remasks as `ReMDM`, and rather what was unsure: each sigma is weighted by the softmax of -confidence.

    Confidence is that of each token when it was committed; the weights of a row's committed tokens sum to 1. Source:
    the confidence-based schedule of ReMDM.
    """

    name = "remdm_conf"
    remask_cap: float = parameter(1.0, 0, 1)

    def sigma(self, committed: Committed, before: float, after: float) -> np.ndarray | float:
        """Return the capped chance, shared out among the tokens of each row."""
        weights = np.exp(-committed.confidence)
        total = np.bincount(committed.rows, weights, minlength=1)
        return super().sigma(committed, before, after) * weights / total[committed.rows]


@dataclass(frozen=True)
class ReMDMLoop(ReMDM):
    """Fills most of a block, then remasks and fills again at the same share for a while, then fills the rest.

    Up to the share `loop_from` of the passes a block is filled to `loop_filled` and from `loop_to` on to the end;
    between them each committed token is remasked with the chance `remask_cap` and as many are filled. Source: the loop
    of ReMDM, whose times 0.55 and 0.05 count from the end.
    """

    name = "remdm_loop"
    loop_from: float = parameter(0.45, 0, 1)
    loop_to: float = parameter(0.95, 0, 1)
    loop_filled: float = parameter(0.9, 0, 1)

    def filled(self, share: float) -> float:
        """Return the share to be filled: rising, constant in the loop, rising to 1."""
        ends = [0.0, self.loop_from, max(self.loop_from, self.loop_to), 1.0]
        return (
            float(np.interp(share, ends, [0.0, self.loop_filled, self.loop_filled, 1.0]))
            if share < 1
            else 1.0
        )

    def least(self, seen: Candidates, committed: Committed) -> np.ndarray:
        """Return none but in the last pass: what is open in the loop stays open."""
        return seen.num_transfer * committed.is_last

    def sigma(self, committed: Committed, before: float, after: float) -> np.ndarray | float:
        """Return the chance within the loop, and 0 outside it."""
        is_in_loop = before == after == self.loop_filled
        return super().sigma(committed, before, after) if is_in_loop else 0.0


@dataclass(frozen=True)
class Wino(RemaskingStrategy):
    """Commits all above a low threshold, remasks what is less probable than a high one when it is hidden.

    A committed token is verified by a shadow: a mask at the same position, which sees the other shadows and all tokens
    but its own, and which no token sees. A pass drafts at most 0.7 of the masks, but 5 in any case and never more than
    20. It remasks the least probable first, fewer than the pass before committed, and none where it drafts a single
    token, so that a block is full after B passes at the latest. Source: WINO (arXiv 2507.18578), section 3; the bounds
    are those of its official code.
    """

    name = "wino"
    is_adaptive = True
    verifies = True
    threshold: float = parameter(0.6, 0, 1)
    verify_threshold: float = parameter(0.9, 0, 1)

    def new_memory(self) -> dict[int, int]:
        """Return, by row, how many its last pass committed."""
        return {}

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Draft, then verify."""
        masked = seen.count(seen.rows)
        most = np.clip((0.7 * masked).astype(np.int64), 5, 20)
        drafts = np.minimum(seen.count(seen.rows[seen.confidence > self.threshold]), most)
        drafts = np.minimum(np.maximum(drafts, seen.num_transfer), masked)
        commit = best_per_row(seen.confidence, seen.rows, drafts)
        doubtful = np.flatnonzero(committed.verified < self.verify_threshold)
        before = np.array([seen.memory.get(row, 0) for row in range(len(masked))])
        most = np.where(committed.is_last | (drafts < 2), 0, np.maximum(before - 1, 0))
        worst = best_per_row(-committed.verified[doubtful], committed.rows[doubtful], most)
        seen.memory.update(enumerate(drafts.tolist()))
        return Decision(commit, doubtful[worst])


def _largest_sigma(before: float, after: float) -> float:
    """Return the largest chance of remasking with which the schedule can still be met."""
    return (1 - after) / before if before > 0 else 0.0
