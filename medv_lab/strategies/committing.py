"""Strategies that only commit: which masked positions a pass fills.

There are two kinds:

- paced: as many as the schedule says, Z B / L passes per block: low_confidence, random, entropy, margin, position;
- adaptive: as many as they trust, at least one, as in the papers: threshold, factor, entropy_bound, kl_stability. A
  block ends when it is full. Where the settings have `max_passes`, a pass commits at least the remaining masks divided
  by the remaining passes, rounded up.

R rows, N candidates, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medv_lab.strategies.base import Candidates, Plan, Strategy, parameter


@dataclass(frozen=True)
class LowConfidence(Strategy):
    """Commits the most confident predictions (LLaDA, arXiv 2502.09992, section 2.4); the published sampler."""

    name = "low_confidence"

    def plan(self, seen: Candidates) -> Plan:
        """Rate by confidence."""
        return Plan(seen.confidence, seen.num_transfer)


@dataclass(frozen=True)
class Random(Strategy):
    """Commits any positions; the "confidence" of each is a number drawn (LLaDA, arXiv 2502.09992, section 2.4)."""

    name = "random"
    is_random = True

    def plan(self, seen: Candidates) -> Plan:
        """Rate by the numbers drawn."""
        return Plan(seen.confidence, seen.num_transfer)


@dataclass(frozen=True)
class Entropy(Strategy):
    """Commits the predictions of least entropy (Dream, arXiv 2508.15487)."""

    name = "entropy"

    def plan(self, seen: Candidates) -> Plan:
        """Rate by negative entropy."""
        return Plan(-seen.distributions.entropy, seen.num_transfer)


@dataclass(frozen=True)
class Margin(Strategy):
    """Commits where the two most probable tokens lie farthest apart (Kim et al., arXiv 2502.06768)."""

    name = "margin"

    def plan(self, seen: Candidates) -> Plan:
        """Rate by the margin."""
        return Plan(seen.distributions.margin, seen.num_transfer)


@dataclass(frozen=True)
class PositionDecay(Strategy):
    """Commits by confidence x exp(-decay i) at answer position i, so that the left comes first.

    Source: the position-aware weight of PC-Sampler (arXiv 2508.13021), without its calibration on a corpus.
    """

    name = "position"
    decay: float = parameter(0.25)

    def plan(self, seen: Candidates) -> Plan:
        """Rate by the weighted confidence."""
        # counted from each row's first candidate, which orders them alike and keeps the weights from underflow
        first = seen.positions[np.searchsorted(seen.rows, seen.rows)]
        return Plan(seen.confidence * np.exp(-self.decay * (seen.positions - first)), seen.num_transfer)


@dataclass(frozen=True)
class Threshold(Strategy):
    """Commits all whose confidence reaches the threshold (Fast-dLLM, arXiv 2505.22618, section 3.3)."""

    name = "threshold"
    is_adaptive = True
    threshold: float = parameter(0.9, 0, 1)

    def plan(self, seen: Candidates) -> Plan:
        """Rate by confidence, and count what reaches the threshold."""
        is_sure = seen.confidence >= self.threshold
        return Plan(seen.confidence, seen.count(seen.rows[is_sure]))


@dataclass(frozen=True)
class Factor(Strategy):
    """Commits the most confident n of a row, n the largest with (n + 1) (1 - c_n) < factor, c_n the n-th confidence.

    Source: Fast-dLLM (arXiv 2505.22618), section 3.3, where the rule follows from its theorem 1. As in the runs of its
    official code, the last candidate of a row goes along where all others are committed.
    """

    name = "factor"
    is_adaptive = True
    factor: float = parameter(1.0)

    def plan(self, seen: Candidates) -> Plan:
        """Rate by confidence, and find n."""
        order = np.lexsort((-seen.confidence, seen.rows))
        n = _numbers(seen.rows)
        fits = (n + 1) * (1 - seen.confidence[order]) < self.factor
        count, masked = np.maximum(_largest(n * fits, seen), 1), seen.count(seen.rows)
        return Plan(seen.confidence, np.where(count + 1 == masked, masked, count))


@dataclass(frozen=True)
class EntropyBound(Strategy):
    """Commits the n of least entropy, n the largest with sum of the entropies - the largest of them <= bound.

    Source: EB-Sampler (arXiv 2505.24857), equation 5, with the entropy in nats as its error proxy.
    """

    name = "entropy_bound"
    is_adaptive = True
    entropy_bound: float = parameter(0.1)

    def plan(self, seen: Candidates) -> Plan:
        """Rate by negative entropy, and find n."""
        entropies = seen.distributions.entropy
        ordered = entropies[np.lexsort((entropies, seen.rows))]
        before = np.zeros(len(ordered))  # sum over those of the row that come before
        for row in np.unique(seen.rows):
            mine = np.flatnonzero(seen.rows == row)
            before[mine[1:]] = ordered[mine[:-1]].cumsum()
        fits = before <= self.entropy_bound
        return Plan(-entropies, _largest(_numbers(seen.rows) * fits, seen))


@dataclass(frozen=True)
class KlStability(Strategy):
    """Commits all whose confidence and stability reach their bounds; the most confident if these are too few.

    A position is stable once its distribution moved by less than `kl_bound` nats, KL(this pass || the pass before), in
    each of the last `stable_passes` passes; those of later blocks are watched too, and may be stable from the second
    pass of their block on. Where none of a row is stable, the schedule's share of the most confident is committed, Z
    B / L passes long, then one. Source: KLASS (arXiv 2511.05664), section 4. Where that share is larger than the masks
    that a block has left, the official code overwrites a committed token with what is then most probable there, and it
    leaves masks where Z passes do not fill an answer; neither is done here.
    """

    name = "kl_stability"
    is_adaptive = True
    watches_all = True
    threshold: float = parameter(0.9, 0, 1)
    kl_bound: float = parameter(0.01)
    stable_passes: int = parameter(2, 1, 2**31)

    def new_memory(self) -> dict[int, tuple[np.ndarray, Any, np.ndarray]]:
        """Return, by row, the positions (n,), log-probabilities (n, V) and stable passes (n,) of its last pass."""
        return {}

    def plan(self, seen: Candidates) -> Plan:
        """Rate stable ones above all others, and count them."""
        is_sure = seen.confidence > self.threshold
        is_stable = is_sure & (self._count_stable_passes(seen) >= self.stable_passes) & (seen.step > 0)
        count = seen.count(seen.rows[is_stable])
        # confidences are at most 1
        return Plan(seen.confidence + 2 * is_stable, np.where(count > 0, count, seen.scheduled))

    def _count_stable_passes(self, seen: Candidates) -> np.ndarray:
        """Count, (N,), for how many passes in succession each distribution stayed; 0 where none is known."""
        counts = np.zeros(len(seen.rows), np.int64)
        for row in np.unique(seen.rows):
            mine = np.flatnonzero(seen.watched.rows == row)
            positions, now = seen.watched.positions[mine], seen.watched.log_probs[mine[0] : mine[-1] + 1]
            stayed = np.zeros(len(mine), np.int64)
            if row in seen.memory:
                old_positions, old, old_counts = seen.memory[row]
                _, new_at, old_at = np.intersect1d(positions, old_positions, return_indices=True)
                moved = divergence(now[new_at.tolist()], old[old_at.tolist()]).cpu().numpy()
                stayed[new_at] = np.where(moved < self.kl_bound, old_counts[old_at] + 1, 0)
            seen.memory[row] = positions, now, stayed
            counts[seen.rows == row] = stayed[np.isin(positions, seen.positions[seen.rows == row])]
        return counts


def divergence(p: Any, q: Any) -> Any:
    """Return KL(p || q) in nats, (N,), of tensors of log-probabilities (N, V); what is impossible in p adds nothing."""
    return (p.exp() * (p - q)).masked_fill(p == -np.inf, 0.0).sum(-1)


def _numbers(rows: np.ndarray) -> np.ndarray:
    """Number the entries within their rows, (N,), from 1."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows) + 1


def _largest(numbers: np.ndarray, seen: Candidates) -> np.ndarray:
    """Return the largest number of each row (R,), 0 where a row has none."""
    largest = np.zeros(len(seen.num_transfer), np.int64)
    np.maximum.at(largest, seen.rows, numbers)
    return largest
