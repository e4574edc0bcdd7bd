"""Strategies that only commit, not by confidence alone: the place in a run of masks, earlier passes, chance.

R rows, N candidates. C credit of a token at a position, p its probability.
"""

from dataclasses import dataclass

import numpy as np

from medv_lab.strategies.base import Candidates, Committed, Decision, Guard, Plan, Strategy, parameter


@dataclass(frozen=True)
class Hierarchical(Strategy):
    """Commits all above a high threshold, and of the others the most confident of each run of masks above a low one.

    Runs are those of neighbouring candidates; what is committed within one splits it for the next pass, so that a block
    is divided again and again, and tokens that are committed together seldom stand side by side. Source: hierarchical
    decoding of dInfer (arXiv 2510.08666).
    """

    name = "hierarchical"
    is_adaptive = True
    threshold: float = parameter(0.9, 0, 1)
    low_threshold: float = parameter(0.3, 0, 1)

    def plan(self, seen: Candidates) -> Plan:
        """Rate what is committed above all others, and count it."""
        starts = (np.diff(seen.rows) != 0) | (np.diff(seen.positions) != 1)
        run = np.concatenate([[0], np.cumsum(starts)])[: len(seen.rows)]
        best_first = np.lexsort((-seen.confidence, run))
        _, firsts = np.unique(run[best_first], return_index=True)
        is_best = np.zeros(len(run), bool)
        is_best[best_first[firsts]] = True
        lowest = np.where(is_best, min(self.low_threshold, self.threshold), self.threshold)
        is_taken = seen.confidence >= lowest
        # confidences are at most 1
        return Plan(seen.confidence + 2 * is_taken, seen.count(seen.rows[is_taken]))


@dataclass(frozen=True)
class Credit(Strategy):
    """Commits all whose confidence reaches the threshold once earlier passes are counted in.

    In every pass all credits of a position fall to `decay` C, and that of the most probable token then rises by
    p^`exponent`. A token's logit is raised by `weight` log(1 + C), so that one that was predicted again and again is
    committed before it is sure. Source: CreditDecoding (arXiv 2510.06133), where the raised logits also choose the
    token; here it stays the most probable one.
    """

    name = "credit"
    is_adaptive = True
    threshold: float = parameter(0.9, 0, 1)
    weight: float = parameter(0.7)
    decay: float = parameter(0.8, 0, 1)
    exponent: float = parameter(0.2)

    def new_memory(self) -> dict[tuple[int, int], dict[int, float]]:
        """Return the credits of tokens by row and position."""
        return {}

    def plan(self, seen: Candidates) -> Plan:
        """Give credit, and rate by the raised confidence."""
        places = list(zip(seen.rows.tolist(), seen.positions.tolist(), strict=True))
        for place, token, p in zip(places, seen.tokens.tolist(), seen.confidence.tolist(), strict=True):
            credits = {one: self.decay * credit for one, credit in seen.memory.get(place, {}).items()}
            seen.memory[place] = credits | {token: credits.get(token, 0.0) + p**self.exponent}
        entries = [(index, one) for index, place in enumerate(places) for one in seen.memory[place]]
        at, tokens = np.array(entries, np.int64).reshape(-1, 2).T
        gain = (1 + np.array([seen.memory[places[index]][one] for index, one in entries])) ** self.weight
        # p of every token with credit; all others are left as they are, so that no vocabulary is written anew
        p = np.exp(seen.distributions.log_probs[at.tolist(), tokens.tolist()].cpu().numpy())
        total = 1 + np.bincount(at, p * (gain - 1), minlength=len(places))
        is_own = tokens == seen.tokens[at]
        raised = (p * gain)[is_own] / total[at[is_own]]
        return Plan(raised, seen.count(seen.rows[raised >= self.threshold]))


@dataclass(frozen=True)
class StochasticTransfer(Strategy):
    """Commits a number drawn: each masked position counts with the chance that the schedule gives one.

    The chance is (a_s - a_t) / (1 - a_t), a_t and a_s being the shares filled before and after the pass, as in the
    reverse process of masked diffusion (MDLM, arXiv 2406.07524); the most confident are committed, in that number. All
    that is left goes in the block's last pass. A commit's confidence in records is the number drawn.
    """

    name = "stochastic"
    is_random = True

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Count the draws below the chance."""
        left = 1 - committed.filled_before
        chance = (committed.filled_after - committed.filled_before) / left if left else 1.0
        count = seen.count(seen.rows[seen.confidence < chance])
        own = (np.arange(len(seen.rows)).tolist(), seen.tokens.tolist())
        rating = seen.distributions.log_probs[own].cpu().numpy()
        return Decision(guard.choose(Plan(rating, count), seen))
