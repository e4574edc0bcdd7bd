"""Strategies that also remask: a committed token may become a mask again.

Only positions of the active block, and none behind the row's stop, are remasked. A position is never remasked and
filled in one pass. remdm and revise_duplicates are paced: a pass commits at least the remaining masks divided by the
remaining passes, rounded up, and nothing is remasked in the last pass of a block. wino is adaptive.

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
        sigma = 0.0
        if committed.filled_before > 0:
            sigma = min(self.remask_cap, (1 - committed.filled_after) / committed.filled_before)
        remask = committed.draw() < sigma
        masked = seen.count(seen.rows) + seen.count(committed.rows[remask])
        left_open = round((1 - committed.filled_after) * seen.block_length)
        count = np.maximum(masked - left_open, seen.num_transfer)
        return Decision(best_per_row(seen.confidence, seen.rows, count), np.flatnonzero(remask))


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


@dataclass(frozen=True)
class ReviseDuplicates(RemaskingStrategy):
    """Commits the most confident; of two committed neighbours with the same token, remasks the less confident.

    Of equally confident ones the right one goes; a token that equals the last of the block before goes too. A position
    is remasked `revisions` times at most, since the model may mean it. An idea of this kit.
    """

    name = "revise_duplicates"
    revisions: int = parameter(1, 1, 2**31)

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Commit the most confident, then look for doubled neighbours among what was committed before."""
        commit = best_per_row(seen.confidence, seen.rows, seen.num_transfer)
        if committed.is_last.any():  # all rows have the same number of passes
            return Decision(commit)
        remask = []
        pairs = zip(committed.rows.tolist(), committed.positions.tolist(), strict=True)
        at = {pair: index for index, pair in enumerate(pairs)}
        for (row, position), index in at.items():
            left, right = at.get((row, position - 1)), at.get((row, position + 1))
            token, confidence = committed.tokens[index], committed.confidence[index]
            if left is not None:
                is_double = committed.tokens[left] == token and committed.confidence[left] >= confidence
            else:
                starts_block = position % seen.block_length == 0 < position
                is_double = starts_block and seen.answer[row, position - 1] == token
            if right is not None:
                is_double |= committed.tokens[right] == token and committed.confidence[right] > confidence
            if is_double and committed.remasked[index] < self.revisions:
                remask.append(index)
        return Decision(commit, np.array(remask, np.int64))
