"""Strategies that also remask: a committed token may become a mask again.

Only positions of the active block, and none behind the row's stop, are remasked; nothing is remasked in the last pass
of a block, so that it is full after Z B / L passes at the latest. A position is never remasked and filled in one pass.
As with the adaptive strategies, a pass commits at least the remaining masks divided by the remaining passes.

R rows, N candidates, M committed positions that may be remasked.
"""

from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import Candidates, Committed, Decision, Guard, Strategy, best_per_row, parameter


@dataclass(frozen=True)
class RemaskingStrategy(Strategy):
    """A strategy that remasks; it chooses without a guard."""

    is_adaptive = True
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

    A committed token is verified by a shadow: a mask at the same position, which sees all others but not the token
    itself, and which none of the others sees. Source: WINO (arXiv 2507.18578), section 3. The least probable are
    remasked first, and fewer than are committed, so that every pass gets on.
    """

    name = "wino"
    verifies = True
    threshold: float = parameter(0.6, 0, 1)
    verify_threshold: float = parameter(0.9, 0, 1)

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Draft, then verify."""
        drafts = np.maximum(seen.count(seen.rows[seen.confidence > self.threshold]), seen.num_transfer)
        drafts = np.minimum(drafts, seen.count(seen.rows))
        commit = best_per_row(seen.confidence, seen.rows, drafts)
        if committed.is_last:
            return Decision(commit)
        doubtful = np.flatnonzero(committed.verified < self.verify_threshold)
        most = np.maximum(drafts - 1, 0)
        worst = best_per_row(-committed.verified[doubtful], committed.rows[doubtful], most)
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
        if committed.is_last:
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
