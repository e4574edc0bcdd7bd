"""From the logits of masked positions to what each would become, how sure that is, and which are committed.

'Low-confidence remasking' (LLaDA, arXiv 2502.09992, section 2.4) means here, as in the reference, that only the
most confident predictions are committed; a committed token is never masked again. N positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Predictions:
    """What masked positions would become.

    Attributes:
        tokens: int64 (N,), the token each would get.
        confidence: float64 (N,), what the choice of positions goes by.
        log_probs: float64 (N, V), after suppression, before noise.
    """

    tokens: torch.Tensor
    confidence: torch.Tensor
    log_probs: torch.Tensor


def predict(
    logits: torch.Tensor,
    suppressed: tuple[int, ...],
    temperature: float,
    uniform: Callable[[], torch.Tensor],
    random_confidence: Callable[[], torch.Tensor] | None,
) -> Predictions:
    """Choose a token for every position and rate it.

    The Gumbel noise is that of the reference, exp(logits) / (-log u)^temperature, in logarithms: the same token is
    the largest, and none overflows or divides zero by zero at a high temperature.

    Args:
        logits: (N, V).
        suppressed: ids that are never chosen and take no part in the softmax; ids from V on name nothing.
        temperature: 0 takes the most probable token, larger values add Gumbel noise in float64.
        uniform: draws the noise (N, V), float64 in [0, 1); called only if the temperature is above 0.
        random_confidence: draws (N,) float64 for random remasking; None rates by probability.
    """
    logits = _suppress(logits.double(), suppressed)
    log_probs = logits.log_softmax(-1)
    noisy = logits
    if temperature > 0:
        noisy = logits.sub(uniform().log_().neg_().log_(), alpha=temperature)
    tokens = noisy.argmax(-1)
    if random_confidence is not None:
        return Predictions(tokens, random_confidence(), log_probs)
    return Predictions(tokens, log_probs.gather(-1, tokens[:, None])[:, 0].exp(), log_probs)


def log_probabilities(logits: torch.Tensor, suppressed: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities, float64 (N, V), of logits (N, V) without the suppressed tokens."""
    return _suppress(logits.double(), suppressed).log_softmax(-1)


def choose(confidence: np.ndarray, rows: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Indices of the `count` most confident candidates of each row, in the order in which they were given.

    Equal ones are taken in that order. A row with fewer candidates gives all of them.

    Args:
        confidence: (N,).
        rows: row of each candidate, (N,), in ascending order.
        count: of every row, or of each row (R,); 0 chooses nothing.
    """
    order = np.lexsort((-confidence, rows))  # row by row, most confident first
    first_of_row = np.searchsorted(rows, rows)  # where each candidate's row begins
    rank = np.arange(len(rows)) - first_of_row
    limit = count[rows] if isinstance(count, np.ndarray) else count
    return np.sort(order[rank < limit])


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats, (N,), of log-probabilities (N, V)."""
    return torch.special.entr(log_probs.exp()).sum(-1)


def _suppress(logits: torch.Tensor, suppressed: tuple[int, ...]) -> torch.Tensor:
    known = [token for token in suppressed if token < logits.shape[-1]]
    return logits.index_fill(-1, torch.tensor(known, device=logits.device), -torch.inf) if known else logits
