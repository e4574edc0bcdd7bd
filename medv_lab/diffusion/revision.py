"""Strategies that also revoke: a committed token may become a mask again.

Only positions of the active block, and none behind the row's stop, are revoked; nothing is revoked in the last pass
of a block, so that it is full after Z B / L passes at the latest. A position is never revoked and filled in one pass.
As with the adaptive strategies, the quota of a pass is the masks left over the passes left, rounded up.

R rows, N candidates, M committed positions that may be revoked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.remasking import choose
from medv_lab.diffusion.strategies import Candidates


@dataclass(frozen=True, eq=False)
class Held:
    """The tokens of the active block that may be revoked, row by row and in order.

    Attributes:
        rows, positions, tokens: int (M,).
        confidence: (M,), of each when it was committed.
        revisions: how often each position was revoked before, int (M,).
        verified: (M,), probability of each token when it is hidden (`wino`); NaN for others.
        drawn: (M,), uniform numbers (`remdm`); NaN for others.
        filled_before, filled_after: share of the block that the schedule wants filled before and after the pass.
        block_length: B.
        is_last: whether this is the last pass of the block.
    """

    rows: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    revisions: np.ndarray
    verified: np.ndarray
    drawn: np.ndarray
    filled_before: float
    filled_after: float
    block_length: int
    is_last: bool


@dataclass(frozen=True, eq=False)
class Decision:
    """Indices of the candidates to commit, and of the held tokens to revoke, both ascending."""

    commit: np.ndarray
    revoke: np.ndarray


def remask_at_random(seen: Candidates, held: Held, settings: GenerationSettings) -> Decision:
    """remdm: each held token is revoked with chance sigma, and as many more are committed as the schedule then lacks.

    sigma = min(cap, (1 - a_s) / a_t), a_t and a_s being the shares filled before and after the pass. Source:
    ReMDM (arXiv 2503.00307), section 4.1, the capped schedule. There each masked position is filled by chance; here,
    as the exact sampler does, the most confident are, in the expected number.
    """
    sigma = 0.0
    if held.filled_before > 0:
        sigma = min(settings.parameter("remask_cap"), (1 - held.filled_after) / held.filled_before)
    revoke = held.drawn < sigma
    masked = _count(seen.rows, seen) + _count(held.rows[revoke], seen)
    left_open = round((1 - held.filled_after) * held.block_length)
    count = np.maximum(masked - left_open, seen.quota)
    return Decision(choose(seen.confidence, seen.rows, count), np.flatnonzero(revoke))


def draft_and_verify(seen: Candidates, held: Held, settings: GenerationSettings) -> Decision:
    """wino: commit all above a low threshold, revoke what is less probable than a high one when it is hidden.

    A held token is judged by a shadow position: a mask with the same place, which sees all others but not the token
    itself, and which none of the others sees. Source: WINO (arXiv 2507.18578), section 3. The least confident are
    revoked first, and fewer than are committed, so that every pass gets on.
    """
    sure = seen.confidence > settings.parameter("threshold")
    drafts = np.maximum(_count(seen.rows[sure], seen), seen.quota)
    drafts = np.minimum(drafts, _count(seen.rows, seen))
    commit = choose(seen.confidence, seen.rows, drafts)
    if held.is_last:
        return Decision(commit, np.zeros(0, np.int64))
    doubtful = np.flatnonzero(held.verified < settings.parameter("verify_threshold"))
    most = np.maximum(drafts - 1, 0)
    return Decision(commit, doubtful[choose(-held.verified[doubtful], held.rows[doubtful], most)])


def revise_duplicates(seen: Candidates, held: Held, settings: GenerationSettings) -> Decision:
    """revise_duplicates: commit the most confident; of two held neighbours with the same token, revoke the less sure.

    Of equally sure ones the right one goes; a token that equals the last of the block before goes too. A position is
    revoked `revisions` times at most, since the model may mean it. An idea of this kit.
    """
    commit = choose(seen.confidence, seen.rows, seen.quota)
    revoke = []
    if not held.is_last:
        at = {
            place: index
            for index, place in enumerate(zip(held.rows.tolist(), held.positions.tolist(), strict=True))
        }
        for (row, position), index in at.items():
            left, right = at.get((row, position - 1)), at.get((row, position + 1))
            token, sure = held.tokens[index], held.confidence[index]
            if left is None:
                before = (
                    seen.answer[row, position - 1] if position % held.block_length == 0 < position else -1
                )
                is_double = before == token
            else:
                is_double = held.tokens[left] == token and held.confidence[left] >= sure
            if right is not None:
                is_double |= held.tokens[right] == token and held.confidence[right] > sure
            if is_double and held.revisions[index] < settings.parameter("revisions"):
                revoke.append(index)
    return Decision(commit, np.array(revoke, np.int64))


Revision = Callable[[Candidates, Held, GenerationSettings], Decision]
REVISIONS: dict[str, Revision] = {
    "remdm": remask_at_random,
    "wino": draft_and_verify,
    "revise_duplicates": revise_duplicates,
}


class Ledger:
    """How sure each token was when it was committed, (R, L), and how often its position was revoked, (R, L)."""

    def __init__(self, rows: int, gen_length: int):
        """Start with nothing committed."""
        self.confidence = np.full((rows, gen_length), np.nan)
        self.revisions = np.zeros((rows, gen_length), np.int64)

    def commit(self, rows: np.ndarray, positions: np.ndarray, confidence: np.ndarray) -> None:
        """Note the confidence (N,) of new tokens; what lies in the prompt is not kept."""
        own = positions >= 0
        self.confidence[rows[own], positions[own]] = confidence[own]

    def revoke(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Count that the positions (N,) were revoked."""
        self.revisions[rows, positions] += 1


def _count(rows: np.ndarray, seen: Candidates) -> np.ndarray:
    return np.bincount(rows, minlength=len(seen.quota))
