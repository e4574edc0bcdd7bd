"""Which masked positions a pass commits: strategies that revoke nothing, each a pure function.

A strategy rates the candidates and says how many of each row it wants. The best rated are committed, or fewer where
a guard against repetition (`diffusion.repetition`) holds some back. There are two kinds:

- paced: as many as the schedule says, Z B / L passes a block: low_confidence, random, entropy, margin, position;
- adaptive: as many as they trust: threshold, factor, entropy_bound, kl_stability. A block ends when it is full. So
  that it is full after Z B / L passes at the latest, a pass commits at least the masks left over the passes left,
  rounded up. With Z = L this is one a pass, as in the papers; with fewer steps it is a floor that Z sets.

R rows, N candidates, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.remasking import Predictions, entropy

ADAPTIVE = ("threshold", "factor", "entropy_bound", "kl_stability")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a pass predicts at the positions that it may fill, row by row and in order.

    Attributes:
        rows, positions: int (N,); positions count from the first of the answer.
        tokens: int64 (N,), what each would become.
        confidence: float64 (N,), probability of the token (random remasking: the number drawn).
        predictions: the same and the log-probabilities, on the model's device.
        quota: how many of each row must be committed, int (R,).
        stable_passes: int (N,), see `Stability`; zeros for strategies that do not read it.
        answer: ids before the pass, int64 (R, L), the mask id where masked.
    """

    rows: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    predictions: Predictions
    quota: np.ndarray
    stable_passes: np.ndarray
    answer: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """What a strategy wants: a rating of each candidate (N,), larger first, and how many of each row (R,)."""

    rating: np.ndarray
    count: np.ndarray


def by_confidence(seen: Candidates, settings: GenerationSettings) -> Plan:
    """low_confidence, random: the most confident (LLaDA, arXiv 2502.09992, section 2.4), or any."""
    return Plan(seen.confidence, seen.quota)


def by_entropy(seen: Candidates, settings: GenerationSettings) -> Plan:
    """entropy: the least entropy first (Dream, arXiv 2508.15487)."""
    return Plan(-_entropies(seen), seen.quota)


def by_margin(seen: Candidates, settings: GenerationSettings) -> Plan:
    """margin: the largest distance between the two most probable tokens first (Kim et al., arXiv 2502.06768)."""
    best = (
        seen.predictions.log_probs.topk(min(2, seen.predictions.log_probs.shape[-1]), dim=-1)
        .values.exp()
        .cpu()
        .numpy()
    )
    return Plan(best[:, 0] - best[:, 1:].sum(1), seen.quota)


def by_position(seen: Candidates, settings: GenerationSettings) -> Plan:
    """position: confidence x exp(-decay i) at answer position i, so that the left comes first.

    Source: the position-aware weight of PC-Sampler (arXiv 2508.13021), without its calibration on a corpus.
    """
    # counted from each row's first candidate, which orders them alike and keeps the weights from underflow
    first = seen.positions[np.searchsorted(seen.rows, seen.rows)]
    weight = np.exp(-settings.parameter("position_decay") * (seen.positions - first))
    return Plan(seen.confidence * weight, seen.quota)


def above_threshold(seen: Candidates, settings: GenerationSettings) -> Plan:
    """threshold: all that are more confident than the threshold (Fast-dLLM, arXiv 2505.22618, section 3.3)."""
    sure = seen.confidence > settings.parameter("threshold")
    return Plan(seen.confidence, _at_least(seen.quota, seen.rows[sure]))


def by_factor(seen: Candidates, settings: GenerationSettings) -> Plan:
    """factor: the most confident n of a row, n the largest with (n + 1) (1 - c_n) < factor, c_n the n-th confidence.

    Source: Fast-dLLM (arXiv 2505.22618), section 3.3, where the rule follows from its theorem 1.
    """
    order = _best_first(seen.confidence, seen.rows)
    number = _rank(seen.rows) + 1
    fits = (number + 1) * (1 - seen.confidence[order]) < settings.parameter("factor")
    return Plan(seen.confidence, np.maximum(seen.quota, _last(number * fits, seen)))


def by_entropy_bound(seen: Candidates, settings: GenerationSettings) -> Plan:
    """entropy_bound: the n of least entropy, n the largest with sum of the entropies - the largest of them <= bound.

    Source: EB-Sampler (arXiv 2505.24857), equation 5, with the entropy in nats as its error proxy.
    """
    entropies = _entropies(seen)
    ordered = entropies[_best_first(-entropies, seen.rows)]
    before = np.zeros(len(ordered))  # sum over those of the row that come before
    for row in np.unique(seen.rows):
        mine = np.flatnonzero(seen.rows == row)
        before[mine[1:]] = ordered[mine[:-1]].cumsum()
    fits = before <= settings.parameter("entropy_bound")
    return Plan(-entropies, np.maximum(seen.quota, _last((_rank(seen.rows) + 1) * fits, seen)))


def by_stability(seen: Candidates, settings: GenerationSettings) -> Plan:
    """kl_stability: all whose confidence and stability reach their bounds; the most confident if these are too few.

    A position is stable once its distribution moved by less than `kl_bound` in each of the last `stable_passes`
    passes. Source: KLASS (arXiv 2511.05664), section 4.
    """
    sure = seen.confidence > settings.parameter("threshold")
    stable = sure & (seen.stable_passes >= settings.parameter("stable_passes"))
    # confidences are at most 1: stable ones come before all others
    return Plan(seen.confidence + 2 * stable, _at_least(seen.quota, seen.rows[stable]))


Strategy = Callable[[Candidates, GenerationSettings], Plan]
STRATEGIES: dict[str, Strategy] = {
    "low_confidence": by_confidence,
    "random": by_confidence,
    "entropy": by_entropy,
    "margin": by_margin,
    "position": by_position,
    "threshold": above_threshold,
    "factor": by_factor,
    "entropy_bound": by_entropy_bound,
    "kl_stability": by_stability,
}


class Stability:
    """For how many passes in succession each position's distribution stayed where it was."""

    def __init__(self, kl_bound: float):
        """Count passes in which KL(this pass || the pass before) in nats is less than the bound."""
        self.kl_bound = kl_bound
        self._before: dict[int, tuple[np.ndarray, torch.Tensor, np.ndarray]] = {}

    def update(self, rows: np.ndarray, positions: np.ndarray, log_probs: torch.Tensor) -> np.ndarray:
        """Take in a pass; counts (N,) of its candidates, 0 where the position was no candidate in the row's last."""
        counts = np.zeros(len(rows), np.int64)
        for row in np.unique(rows):
            mine = np.flatnonzero(rows == row)
            now = log_probs[int(mine[0]) : int(mine[-1]) + 1]
            if row in self._before:
                old_positions, old, old_counts = self._before[row]
                _, new_at, old_at = np.intersect1d(positions[mine], old_positions, return_indices=True)
                both = [torch.from_numpy(at).to(now.device) for at in (new_at, old_at)]
                is_still = (divergence(now[both[0]], old[both[1]]) < self.kl_bound).cpu().numpy()
                counts[mine[new_at]] = np.where(is_still, old_counts[old_at] + 1, 0)
            self._before[row] = positions[mine], now, counts[mine]
        return counts


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats, (N,), of log-probabilities (N, V); what is impossible in p adds nothing."""
    terms = p.exp() * (p - q)
    return torch.where(p == -torch.inf, 0.0, terms).sum(-1)


def _entropies(seen: Candidates) -> np.ndarray:
    return entropy(seen.predictions.log_probs).cpu().numpy()


def _at_least(quota: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How often each row is among `rows`, but at least its quota (R,)."""
    return np.maximum(quota, np.bincount(rows, minlength=len(quota)))


def _best_first(rating: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Order (N,) of candidates: row by row, best first."""
    return np.lexsort((-rating, rows))


def _rank(rows: np.ndarray) -> np.ndarray:
    """Place of each entry within its row (N,), from 0."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)


def _last(numbers: np.ndarray, seen: Candidates) -> np.ndarray:
    """Largest number of each row (R,), 0 where a row has none."""
    largest = np.zeros(len(seen.quota), np.int64)
    np.maximum.at(largest, seen.rows, numbers)
    return largest
